//! Noise transport messages, on ring itself: snow's own copy every message once more, and cannot be shared by two halves.

use super::TransferError;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use snow::HandshakeState;
use zeroize::Zeroizing;

pub(super) const TAG_BYTES: usize = 16;

/// Encrypts what goes in one direction.
pub(super) struct Sealing(Messages);

/// Decrypts what comes in the other.
pub(super) struct Opening(Messages);

/// A key and the number of the next message, from 0 (Noise specification §5.1: the nonce is four zero bytes and the
/// number, least significant byte first).
struct Messages {
    key: LessSafeKey,
    next: u64,
}

/// The two directions after a handshake, by its `Split()` (Noise specification §5.2: the first key is the initiator's).
pub(super) fn split(noise: &mut HandshakeState) -> Result<(Sealing, Opening), TransferError> {
    if !noise.is_handshake_finished() {
        return Err(TransferError::Protocol("the handshake has not finished"));
    }
    let (initiators, responders) = noise.dangerously_get_raw_split();
    let (initiators, responders) = (Zeroizing::new(initiators), Zeroizing::new(responders));
    let (own, theirs) = if noise.is_initiator() { (initiators, responders) } else { (responders, initiators) };
    Ok((Sealing(Messages::new(&own)?), Opening(Messages::new(&theirs)?)))
}

impl Sealing {
    /// Encrypts a message in its place and puts its tag behind it.
    pub(super) fn seal(&mut self, message: &mut [u8]) -> Result<(), TransferError> {
        let failed = TransferError::Protocol("a message could not be encrypted");
        let nonce = self.0.nonce()?;
        let Some((plaintext, tag)) = message.split_last_chunk_mut::<TAG_BYTES>() else { return Err(failed) };
        let made = self.0.key.seal_in_place_separate_tag(nonce, Aad::empty(), plaintext).map_err(|_| failed)?;
        tag.copy_from_slice(made.as_ref());
        Ok(())
    }
}

impl Opening {
    /// Decrypts a message, which begins `shift` bytes into `bytes` and ends with them, to their beginning; how long it is.
    pub(super) fn open(&mut self, bytes: &mut [u8], shift: usize) -> Result<usize, TransferError> {
        let nonce = self.0.nonce()?;
        let opened = self.0.key.open_within(nonce, Aad::empty(), bytes, shift..);
        opened.map(|plaintext| plaintext.len()).map_err(|_| TransferError::Protocol("a message does not decrypt"))
    }
}

impl Messages {
    fn new(key: &[u8; 32]) -> Result<Self, TransferError> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).map_err(|_| TransferError::Protocol("not a key"))?;
        Ok(Self { key: LessSafeKey::new(key), next: 0 })
    }

    /// Each is used once: nothing else counts.
    fn nonce(&mut self) -> Result<Nonce, TransferError> {
        let mut nonce = [0; NONCE_LEN];
        nonce[4..].copy_from_slice(&self.next.to_le_bytes());
        self.next = self.next.checked_add(1).ok_or(TransferError::Protocol("the connection is used up"))?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snow::{Builder, StatelessTransportState};

    fn handshake() -> (HandshakeState, HandshakeState) {
        let builder =
            || Builder::new("Noise_XXpsk0_25519_ChaChaPoly_SHA256".parse().unwrap()).psk(0, &[7; 32]).unwrap();
        let (own, theirs) = (builder().generate_keypair().unwrap(), builder().generate_keypair().unwrap());
        let mut initiator = builder().local_private_key(&own.private).unwrap().build_initiator().unwrap();
        let mut responder = builder().local_private_key(&theirs.private).unwrap().build_responder().unwrap();
        let (mut message, mut payload) = ([0; 1024], [0; 1024]);
        for turn in 0..3 {
            let (from, to) =
                if turn % 2 == 0 { (&mut initiator, &mut responder) } else { (&mut responder, &mut initiator) };
            let length = from.write_message(&[], &mut message).unwrap();
            to.read_message(&message[..length], &mut payload).unwrap();
        }
        (initiator, responder)
    }

    /// Seals with ours, opens with ours and with snow's.
    #[test]
    fn messages_are_those_of_noise() {
        let (mut initiator, mut responder) = handshake();
        let (mut own, _) = split(&mut initiator).unwrap();
        let (mut answering, mut theirs) = split(&mut responder).unwrap();
        let snow: StatelessTransportState = responder.into_stateless_transport_mode().unwrap();
        let snow_initiator = initiator.into_stateless_transport_mode().unwrap();
        for number in 0..300 {
            let mut message = vec![number as u8; 100];
            own.seal(&mut message).unwrap();
            let mut plain = [0; 100];
            assert_eq!(snow.read_message(number, &message, &mut plain).unwrap(), 84);
            assert_eq!(plain[..84], [number as u8; 84]);
            // As it lies in a body: behind a length and the tag of the one before.
            let mut shifted = [&[9; 18][..], &message].concat();
            assert_eq!(theirs.open(&mut shifted, 18).unwrap(), 84);
            assert_eq!(shifted[..84], [number as u8; 84]);
        }
        let mut answer = vec![5; 20];
        answering.seal(&mut answer).unwrap();
        assert_eq!(snow_initiator.read_message(0, &answer, &mut [0; 20]).unwrap(), 4);
    }

    #[test]
    fn a_message_opens_once_in_its_turn_and_unchanged() {
        let (mut initiator, mut responder) = handshake();
        let (mut own, _) = split(&mut initiator).unwrap();
        let mut message = vec![1; 40];
        own.seal(&mut message).unwrap();
        for at in 0..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 1;
            assert!(split(&mut responder).unwrap().1.open(&mut changed, 0).is_err(), "byte {at}");
        }
        let (_, mut theirs) = split(&mut responder).unwrap();
        assert!(theirs.open(&mut message.clone(), 0).is_ok());
        assert!(theirs.open(&mut message, 0).is_err(), "the same again");
        assert!(own.seal(&mut [0; TAG_BYTES - 1]).is_err());
    }
}
