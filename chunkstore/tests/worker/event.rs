//! What a child says, a line for each.

use std::fmt;

use chunkstore_block::BlockId;

use super::promises::Holding;

/// The test runner may have begun the line with the test's name.
const MARK: &str = "event: ";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// From here on it may have happened.
    Begins(Action),
    /// The store has acknowledged it.
    Done(Action),
    /// The store refused something or could not be opened.
    Failed(String),
    /// The store holds this, intact.
    Holds(Holding),
    /// Everything that the store holds has been said, and it can be used.
    Sound,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Put { id: BlockId, length: usize, reference: u8 },
    Refer { id: BlockId, reference: u8 },
    Remove { id: BlockId },
}

impl Event {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (_, event) = line.split_once(MARK)?;
        let (kind, rest) = event.split_once(' ').unwrap_or((event, ""));
        Some(match kind {
            "begins" => Self::Begins(Action::parse(rest)),
            "done" => Self::Done(Action::parse(rest)),
            "failed" => Self::Failed(rest.to_owned()),
            "holds" => Self::Holds(parse_holding(rest)),
            "sound" => Self::Sound,
            _ => panic!("not an event: {line}"),
        })
    }
}

impl Event {
    pub(crate) fn into_holding(self) -> Option<Holding> {
        if let Self::Holds(holding) = self { Some(holding) } else { None }
    }
}

impl Action {
    fn parse(action: &str) -> Self {
        let words: Vec<&str> = action.split(' ').collect();
        match words[..] {
            ["put", id, length, reference] => {
                let (length, reference) = (length.parse().unwrap(), reference.parse().unwrap());
                Self::Put { id: id.parse().unwrap(), length, reference }
            }
            ["refer", id, reference] => Self::Refer { id: id.parse().unwrap(), reference: reference.parse().unwrap() },
            ["remove", id] => Self::Remove { id: id.parse().unwrap() },
            _ => panic!("not an action: {action}"),
        }
    }
}

fn parse_holding(holding: &str) -> Holding {
    let mut words = holding.split(' ');
    Holding {
        id: words.next().unwrap().parse().unwrap(),
        length: words.next().unwrap().parse().unwrap(),
        references: words.map(|reference| reference.parse().unwrap()).collect(),
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MARK)?;
        match self {
            Self::Begins(action) => write!(f, "begins {action}"),
            Self::Done(action) => write!(f, "done {action}"),
            Self::Failed(reason) => write!(f, "failed {}", reason.replace('\n', " ")),
            Self::Holds(Holding { id, length, references }) => {
                write!(f, "holds {id} {length}")?;
                references.iter().try_for_each(|reference| write!(f, " {reference}"))
            }
            Self::Sound => write!(f, "sound"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { id, length, reference } => write!(f, "put {id} {length} {reference}"),
            Self::Refer { id, reference } => write!(f, "refer {id} {reference}"),
            Self::Remove { id } => write!(f, "remove {id}"),
        }
    }
}
