//! What an authority has taken back.

use super::MembershipError;
use super::bytes::Reader;
use super::certificate::{Authority, AuthorityId, AuthorityKey, SIGNATURE_BYTES, Serial};
use chunkstore_block::NetworkId;
use std::collections::BTreeSet;
use std::fmt;

const VERSION: u8 = 1;
pub(super) const SIGNED_AS: &[u8] = b"imira/1/revocations";
/// The most serials in a list (`docs/protocol.md` §8).
pub const MAX_REVOKED: usize = 16_384;

/// All certificates that an authority has taken back and that have not ended by themselves, as the list's bytes say.
#[derive(Clone, PartialEq, Eq)]
pub struct RevocationList {
    pub(super) authority: AuthorityId,
    pub(super) network: NetworkId,
    number: u64,
    serials: BTreeSet<Serial>,
    bytes: Vec<u8>,
}

impl RevocationList {
    /// Makes and signs the list with this number.
    ///
    /// # Errors
    /// [`MembershipError::Malformed`] with more than [`MAX_REVOKED`] serials.
    pub fn sign(
        authority: &Authority,
        network: NetworkId,
        number: u64,
        serials: BTreeSet<Serial>,
    ) -> Result<Self, MembershipError> {
        if serials.len() > MAX_REVOKED {
            return Err(TOO_MANY);
        }
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&authority.public().id().0);
        bytes.extend_from_slice(network.as_bytes());
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&(serials.len() as u32).to_be_bytes());
        serials.iter().for_each(|serial| bytes.extend_from_slice(&serial.0));
        let signature = authority.sign(SIGNED_AS, &bytes);
        bytes.extend_from_slice(&signature);
        Ok(Self { authority: authority.public().id(), network, number, serials, bytes })
    }

    /// Reads one. Nothing of it is checked yet but its form.
    ///
    /// # Errors
    /// [`MembershipError::Malformed`] when the bytes are not one list of version 1 and nothing else.
    pub fn parse(bytes: &[u8]) -> Result<Self, MembershipError> {
        let mut reader = Reader::new(bytes);
        let list = Self::read(&mut reader)?;
        reader.end()?;
        Ok(list)
    }

    /// Reads several, one after another; at most `limit`.
    pub(super) fn parse_several(bytes: &[u8], limit: usize) -> Result<Vec<Self>, MembershipError> {
        let mut reader = Reader::new(bytes);
        let mut lists = Vec::new();
        while !reader.rest().is_empty() {
            if lists.len() == limit {
                return Err(MembershipError::Malformed("it holds more lists than the network has authorities"));
            }
            lists.push(Self::read(&mut reader)?);
        }
        Ok(lists)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, MembershipError> {
        let all = reader.rest();
        if reader.array()? != [VERSION] {
            return Err(MembershipError::Malformed("it is not of version 1"));
        }
        let authority = AuthorityId(reader.array()?);
        let network = NetworkId::from_bytes(reader.array()?);
        let number = u64::from_be_bytes(reader.array()?);
        let count = u32::from_be_bytes(reader.array()?) as usize;
        if count > MAX_REVOKED {
            return Err(TOO_MANY);
        }
        let mut serials = BTreeSet::new();
        for _ in 0..count {
            let serial = Serial(reader.array()?);
            if serials.last() >= Some(&serial) {
                return Err(MembershipError::Malformed("its serials do not ascend"));
            }
            serials.insert(serial);
        }
        reader.array::<SIGNATURE_BYTES>()?;
        let bytes = all[..all.len() - reader.rest().len()].to_vec();
        Ok(Self { authority, network, number, serials, bytes })
    }

    /// Rises from list to list of one authority.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What is revoked.
    #[must_use]
    pub fn serials(&self) -> &BTreeSet<Serial> {
        &self.serials
    }

    /// The bytes, as files and nodes carry them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether this authority made it.
    #[must_use]
    pub fn is_signed_by(&self, authority: &AuthorityKey) -> bool {
        self.authority == authority.id() && authority.has_signed(SIGNED_AS, &self.bytes)
    }

    /// Of which network.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.network
    }
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RevocationList({:?}, number {}, {} serials)", self.authority, self.number, self.serials.len())
    }
}

const TOO_MANY: MembershipError = MembershipError::Malformed("it holds more than 16,384 serials");
