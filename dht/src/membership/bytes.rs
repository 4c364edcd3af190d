//! Reading fixed layouts of foreign bytes.

use super::MembershipError;

const TOO_SHORT: MembershipError = MembershipError::Malformed("it is too short");

pub(super) struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'b [u8], MembershipError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(TOO_SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], MembershipError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(TOO_SHORT)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'b [u8] {
        self.0
    }

    pub(super) fn end(&self) -> Result<(), MembershipError> {
        if self.0.is_empty() { Ok(()) } else { Err(MembershipError::Malformed("something follows it")) }
    }
}
