//! CBOR that may be wrong: the library's own writer has no way to say what a reader must refuse.

use minicbor::Encoder;

/// An item. Maps keep the order of their entries, and `Raw` is written as it is.
#[derive(Clone, Debug)]
pub(crate) enum Cbor {
    Uint(u64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Cbor>),
    Map(Vec<(Cbor, Cbor)>),
    Raw(Vec<u8>),
}

use Cbor::{Array, Bytes, Map, Raw, Text, Uint};

impl Cbor {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new(Vec::new());
        self.write(&mut out);
        out.into_writer()
    }

    fn write(&self, out: &mut Encoder<Vec<u8>>) {
        match self {
            Uint(number) => drop(out.u64(*number)),
            Bytes(bytes) => drop(out.bytes(bytes)),
            Text(text) => drop(out.str(text)),
            Array(items) => {
                drop(out.array(items.len() as u64));
                items.iter().for_each(|item| item.write(out));
            }
            Map(entries) => {
                drop(out.map(entries.len() as u64));
                entries.iter().for_each(|(key, value)| {
                    key.write(out);
                    value.write(out);
                });
            }
            Raw(bytes) => out.writer_mut().extend_from_slice(bytes),
        }
    }

    /// The value of a map's key, or the item of an array, to be replaced.
    pub(crate) fn at(&mut self, place: u64) -> &mut Cbor {
        match self {
            Array(items) => &mut items[place as usize],
            Map(entries) => {
                let entry = entries.iter_mut().find(|(key, _)| matches!(key, Uint(number) if *number == place));
                &mut entry.expect("the key is there").1
            }
            Uint(_) | Bytes(_) | Text(_) | Raw(_) => panic!("{self:?} has no items"),
        }
    }

    /// The same with the item at the end of this path of keys and places replaced.
    pub(crate) fn with(mut self, path: &[u64], new: impl Into<Cbor>) -> Self {
        *path.iter().fold(&mut self, |item, place| item.at(*place)) = new.into();
        self
    }

    /// The same with other entries, where this is a map.
    pub(crate) fn with_entries(mut self, path: &[u64], change: impl FnOnce(&mut Vec<(Cbor, Cbor)>)) -> Self {
        let Map(entries) = path.iter().fold(&mut self, |item, place| item.at(*place)) else { panic!("no map") };
        change(entries);
        self
    }
}

impl From<u64> for Cbor {
    fn from(number: u64) -> Self {
        Uint(number)
    }
}

impl From<&str> for Cbor {
    fn from(text: &str) -> Self {
        Text(text.to_owned())
    }
}

impl From<String> for Cbor {
    fn from(text: String) -> Self {
        Text(text)
    }
}

impl From<[u8; 32]> for Cbor {
    fn from(id: [u8; 32]) -> Self {
        Bytes(id.to_vec())
    }
}

impl From<Vec<Cbor>> for Cbor {
    fn from(items: Vec<Cbor>) -> Self {
        Array(items)
    }
}

/// A map with the keys 0, 1, 2... and these values.
pub(crate) fn map<const N: usize>(values: [Cbor; N]) -> Cbor {
    Map((0..).map(Uint).zip(values).collect())
}

/// An array of items of any kind.
macro_rules! array {
    ($($item:expr),* $(,)?) => { $crate::cbor::Cbor::Array(vec![$($crate::cbor::Cbor::from($item)),*]) };
}
pub(crate) use array;
