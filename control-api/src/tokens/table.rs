//! The tokens that a node has issued, bounded in number and so in memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chunkstore_block::{ContentKey, PlatformFingerprint, PublicationId};

use super::{Grant, Issued, PlaybackGrant, Token, TokenDigest, UploadGrant};
use crate::problem::{ErrorKind, Problem};

/// How long an expired token is remembered, so that its holder reads `token-expired` and not `token-unknown`. A guess: ten
/// lifetimes of a playback token.
const REMEMBER_EXPIRED: Duration = Duration::from_secs(300);

/// Tokens, live and remembered, that one table holds: 100,000 viewers who renew every 30 s, and as many remembered. At most
/// [`TOKEN_MEMORY`] each, 134 MB together; `make bench SUITE=tokens` says what it is.
const TABLE_CAPACITY: usize = 262_144;

/// The most memory that a token takes, bytes: itself, its places in the two orders, and what allocator and hash table leave unused.
#[cfg(test)]
const TOKEN_MEMORY: usize = 512;

/// A live token.
#[derive(Clone, Debug)]
pub struct LiveToken {
    /// What it opens, shared with the transfers under it.
    pub issued: Arc<Issued>,
    /// How long it still lives; never zero.
    pub remaining: Duration,
}

/// The tokens that a node has issued. Shared between tasks; holds SHA-256 of each token, never the token. Time is an argument
/// (monotonic, so that a clock that is set neither ends nor extends a token).
pub struct TokenTable {
    tokens: Mutex<Tokens>,
    capacity: usize,
}

#[derive(Default)]
struct Tokens {
    entries: HashMap<TokenDigest, Arc<Issued>>,
    /// The same tokens by expiry, the earliest first.
    by_expiry: BTreeSet<(Instant, TokenDigest)>,
    /// The one live token of each upload.
    uploads: HashMap<PublicationId, TokenDigest>,
}

impl Default for TokenTable {
    fn default() -> Self {
        Self::with_capacity(TABLE_CAPACITY)
    }
}

impl TokenTable {
    /// A table of at most `capacity` tokens, live and remembered.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { tokens: Mutex::default(), capacity }
    }

    /// Issues a token for one content, good until `now` + [`PLAYBACK_LIFETIME`](super::PLAYBACK_LIFETIME).
    ///
    /// Errors: `busy` when the table is full of live tokens, `internal` without randomness.
    pub fn issue_playback(&self, grant: PlaybackGrant, now: Instant) -> Result<Token, Problem> {
        let token = Token::generate().map_err(|error| Problem::internal(&error))?;
        let mut tokens = self.lock();
        tokens.make_room(now, self.capacity)?;
        tokens.insert(Issued::new(Grant::Playback(grant), token.digest(), now));
        Ok(token)
    }

    /// A token for one upload, which opens nothing until it is admitted: the upload's earlier one stays good until the node has kept this one.
    ///
    /// Errors: as [`TokenTable::issue_playback`], and `upload-exists` when another platform uses this publication id.
    pub fn draw_upload(&self, grant: &UploadGrant, now: Instant) -> Result<Token, Problem> {
        let mut tokens = self.lock();
        tokens.refuse_foreign(grant)?;
        tokens.make_room(now, self.capacity)?;
        Token::generate().map_err(|error| Problem::internal(&error))
    }

    /// Makes an upload's token good for `remaining`, at most [`UPLOAD_LIFETIME`](super::UPLOAD_LIFETIME), and ends the upload's earlier one.
    ///
    /// Errors: as [`TokenTable::draw_upload`].
    pub fn admit_upload(
        &self,
        token: TokenDigest,
        grant: UploadGrant,
        remaining: Duration,
        now: Instant,
    ) -> Result<(), Problem> {
        let mut tokens = self.lock();
        tokens.refuse_foreign(&grant)?;
        tokens.make_room(now, self.capacity)?;
        tokens.end_upload(grant.reference.publication);
        let mut issued = Issued::new(Grant::Upload(grant), token, now);
        issued.expires = issued.expires.min(now + remaining);
        tokens.insert(issued);
        Ok(())
    }

    /// What the token opens at `now`.
    ///
    /// Errors: `token-revoked` for one that was taken back, `token-expired` for one that was good once, while they are still remembered;
    /// `token-unknown` for any other.
    pub fn lookup(&self, token: &Token, now: Instant) -> Result<LiveToken, Problem> {
        let issued = self.lock().entries.get(&token.digest()).cloned().ok_or_else(unknown)?;
        if issued.is_revoked() {
            return Err(revoked());
        }
        match issued.expires.checked_duration_since(now) {
            Some(remaining) if !remaining.is_zero() => Ok(LiveToken { issued, remaining }),
            _ => Err(expired(&issued.grant)),
        }
    }

    /// Takes back the playback tokens that this platform asked for and that open this content; how many were alive at `now`.
    /// Transfers under them end with the next block.
    pub fn revoke_content(&self, platform: &PlatformFingerprint, content: &ContentKey, now: Instant) -> usize {
        self.revoke_where(now, |grant| match grant {
            Grant::Playback(grant) => grant.platform == *platform && grant.content == *content,
            Grant::Upload(_) => false,
        })
    }

    /// Takes back every token of these platforms; how many were alive at `now`.
    pub fn revoke_platforms(&self, platforms: &[PlatformFingerprint], now: Instant) -> usize {
        self.revoke_where(now, |grant| platforms.contains(&grant.platform()))
    }

    /// Walks the whole table, some milliseconds with the lock held: what is revoked is rare, and an index by content would cost every
    /// token memory.
    fn revoke_where(&self, now: Instant, concerned: impl Fn(&Grant) -> bool) -> usize {
        let tokens = self.lock();
        let live = tokens.entries.values().filter(|issued| issued.expires > now && !issued.is_revoked());
        live.filter(|issued| concerned(&issued.grant)).inspect(|issued| issued.revoke()).count()
    }

    /// Forgets a token at once; true when it was there.
    pub fn revoke(&self, token: &Token) -> bool {
        self.lock().remove(&token.digest())
    }

    /// Tokens held, live and remembered.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Tokens> {
        // No holder of the lock leaves the three collections half changed, so a panic elsewhere does not spoil them.
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tokens {
    fn insert(&mut self, issued: Issued) {
        let digest = issued.digest;
        self.by_expiry.insert((issued.expires, digest));
        if let Grant::Upload(grant) = &issued.grant {
            self.uploads.insert(grant.reference.publication, digest);
        }
        self.entries.insert(digest, Arc::new(issued));
    }

    fn remove(&mut self, digest: &TokenDigest) -> bool {
        let Some(entry) = self.entries.remove(digest) else { return false };
        self.by_expiry.remove(&(entry.expires, *digest));
        if let Grant::Upload(grant) = &entry.grant {
            let publication = grant.reference.publication;
            if self.uploads.get(&publication) == Some(digest) {
                self.uploads.remove(&publication);
            }
        }
        true
    }

    /// Drops what expired more than [`REMEMBER_EXPIRED`] ago.
    fn forget_old(&mut self, now: Instant) {
        while let Some((expires, digest)) = self.by_expiry.first().copied() {
            if expires + REMEMBER_EXPIRED > now {
                break;
            }
            self.remove(&digest);
        }
    }

    /// Gives up the memory of an expired token when the table is full; a live token is never given up.
    fn make_room(&mut self, now: Instant, capacity: usize) -> Result<(), Problem> {
        self.forget_old(now);
        if self.entries.len() < capacity {
            return Ok(());
        }
        match self.by_expiry.first().copied() {
            Some((expires, digest)) if expires <= now => {
                self.remove(&digest);
                Ok(())
            }
            _ => Err(Problem::new(
                ErrorKind::Busy,
                format!(
                    "All {capacity} tokens of this node are in use. Ask again in some seconds, or ask another node."
                ),
            )),
        }
    }

    /// A second platform that names another's publication must not take over its upload.
    fn refuse_foreign(&self, grant: &UploadGrant) -> Result<(), Problem> {
        let earlier = self.uploads.get(&grant.reference.publication).and_then(|digest| self.entries.get(digest));
        match earlier.filter(|issued| !issued.is_revoked()).map(|issued| &issued.grant) {
            Some(Grant::Upload(earlier)) if earlier.reference.platform != grant.reference.platform => {
                Err(Problem::new(
                    ErrorKind::UploadExists,
                    "Another platform uses this publication id here. Make a new random publication id.",
                ))
            }
            _ => Ok(()),
        }
    }

    fn end_upload(&mut self, publication: PublicationId) {
        if let Some(digest) = self.uploads.get(&publication).copied() {
            self.remove(&digest);
        }
    }
}

fn unknown() -> Problem {
    Problem::new(
        ErrorKind::TokenUnknown,
        "This node never issued the token, or forgot it after it expired. Ask the platform for a new one.",
    )
}

fn revoked() -> Problem {
    Problem::new(
        ErrorKind::TokenRevoked,
        "The platform took the token back, or this node no longer serves the platform. Ask the platform for a new one.",
    )
}

fn expired(grant: &Grant) -> Problem {
    Problem::new(
        ErrorKind::TokenExpired,
        format!("Tokens live for {} seconds. Ask the platform for a new one.", grant.lifetime().as_secs()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::{PLAYBACK_LIFETIME, UPLOAD_LIFETIME};
    use super::*;
    use chunkstore_block::Reference;

    fn content() -> ContentKey {
        ContentKey::from_bytes([5; 32])
    }

    fn playback() -> PlaybackGrant {
        let platform = PlatformFingerprint::from_bytes([1; 32]);
        PlaybackGrant { platform, content: content(), scope: None, publication: None, viewer: [7; 32], issued: 1 }
    }

    fn grant(platform: u8) -> UploadGrant {
        let reference = Reference {
            platform: PlatformFingerprint::from_bytes([platform; 32]),
            publication: PublicationId::from_bytes([6; 16]),
        };
        UploadGrant { reference, size: 10 }
    }

    fn kind(table: &TokenTable, token: &Token, now: Instant) -> Result<Grant, ErrorKind> {
        table.lookup(token, now).map(|live| live.issued.grant.clone()).map_err(|problem| problem.kind)
    }

    #[test]
    fn a_playback_token_lives_30_seconds() {
        let (table, start) = (TokenTable::default(), Instant::now());
        let token = table.issue_playback(playback(), start).unwrap();
        let live = table.lookup(&token, start + Duration::from_secs(12)).unwrap();
        assert_eq!((live.issued.grant(), live.remaining), (&Grant::Playback(playback()), Duration::from_secs(18)));
        assert!(kind(&table, &token, start + Duration::from_millis(29_999)).is_ok());
        assert_eq!(kind(&table, &token, start + PLAYBACK_LIFETIME), Err(ErrorKind::TokenExpired));
        assert_eq!(kind(&table, &Token::generate().unwrap(), start), Err(ErrorKind::TokenUnknown));
    }

    #[test]
    fn an_expired_token_is_remembered_for_a_while() {
        let (table, start) = (TokenTable::default(), Instant::now());
        let token = table.issue_playback(playback(), start).unwrap();
        let forgotten = start + PLAYBACK_LIFETIME + REMEMBER_EXPIRED;
        table.issue_playback(playback(), forgotten - Duration::from_secs(1)).unwrap();
        assert_eq!(kind(&table, &token, forgotten), Err(ErrorKind::TokenExpired));
        table.issue_playback(playback(), forgotten).unwrap();
        assert_eq!(kind(&table, &token, forgotten), Err(ErrorKind::TokenUnknown));
    }

    #[test]
    fn a_full_table_gives_up_the_dead_and_never_the_living() {
        let (table, start) = (TokenTable::with_capacity(2), Instant::now());
        let first = table.issue_playback(playback(), start).unwrap();
        let second = table.issue_playback(playback(), start + Duration::from_secs(1)).unwrap();
        assert_eq!(table.issue_playback(playback(), start).unwrap_err().kind, ErrorKind::Busy);
        let later = start + PLAYBACK_LIFETIME;
        table.issue_playback(playback(), later).unwrap();
        assert_eq!(kind(&table, &first, later), Err(ErrorKind::TokenUnknown));
        assert!(kind(&table, &second, later).is_ok());
        assert_eq!(table.len(), 2);
    }

    fn issue_upload(table: &TokenTable, grant: UploadGrant, now: Instant) -> Result<Token, Problem> {
        let token = table.draw_upload(&grant, now)?;
        table.admit_upload(token.digest(), grant, UPLOAD_LIFETIME, now)?;
        Ok(token)
    }

    #[test]
    fn a_new_upload_token_ends_the_old_one() {
        let (table, start) = (TokenTable::default(), Instant::now());
        let old = issue_upload(&table, grant(1), start).unwrap();
        let new = issue_upload(&table, grant(1), start).unwrap();
        assert_eq!(kind(&table, &old, start), Err(ErrorKind::TokenUnknown));
        assert_eq!(kind(&table, &new, start + UPLOAD_LIFETIME - Duration::from_secs(1)), Ok(Grant::Upload(grant(1))));
        assert_eq!(kind(&table, &new, start + UPLOAD_LIFETIME), Err(ErrorKind::TokenExpired));
        assert_eq!(issue_upload(&table, grant(2), start).unwrap_err().kind, ErrorKind::UploadExists);
        assert!(table.revoke(&new) && !table.revoke(&new) && table.is_empty());
        assert!(issue_upload(&table, grant(2), start).is_ok());
    }

    #[test]
    fn an_upload_token_outlives_the_table() {
        let (first, second, start) = (TokenTable::default(), TokenTable::default(), Instant::now());
        let token = issue_upload(&first, grant(1), start).unwrap();
        let hour = Duration::from_secs(3_600);
        second.admit_upload(token.digest(), grant(1), hour, start).unwrap();
        assert_eq!(kind(&second, &token, start + hour - Duration::from_secs(1)), Ok(Grant::Upload(grant(1))));
        assert_eq!(kind(&second, &token, start + hour), Err(ErrorKind::TokenExpired));
        let renewed = issue_upload(&second, grant(1), start).unwrap();
        assert_eq!(kind(&second, &token, start), Err(ErrorKind::TokenUnknown));
        assert!(kind(&second, &renewed, start).is_ok());
    }

    #[test]
    fn a_revocation_ends_the_contents_tokens_of_that_platform_at_once() {
        let (table, start) = (TokenTable::default(), Instant::now());
        let other_platform = PlaybackGrant { platform: PlatformFingerprint::from_bytes([2; 32]), ..playback() };
        let other_content = PlaybackGrant { content: ContentKey::from_bytes([6; 32]), ..playback() };
        let mine = [playback(), playback()].map(|grant| table.issue_playback(grant, start).unwrap());
        let others = [other_platform, other_content].map(|grant| table.issue_playback(grant, start).unwrap());
        let live = table.lookup(&mine[0], start).unwrap();
        assert_eq!(table.revoke_content(&playback().platform, &content(), start), 2);
        assert_eq!(table.revoke_content(&playback().platform, &content(), start), 0, "they are dead already");
        assert_eq!(kind(&table, &mine[1], start), Err(ErrorKind::TokenRevoked));
        assert_eq!(
            live.issued.take(1, start, u64::MAX),
            Err(super::super::Cut::Revoked),
            "a transfer under way hears of it"
        );
        assert!(others.iter().all(|token| kind(&table, token, start).is_ok()));
        assert!(kind(&table, &table.issue_playback(playback(), start).unwrap(), start).is_ok(), "a new one is good");
    }

    #[test]
    fn the_tokens_of_a_platform_that_is_no_longer_served_end() {
        let (table, start) = (TokenTable::default(), Instant::now());
        let upload = issue_upload(&table, grant(1), start).unwrap();
        let (mine, other) =
            (playback(), PlaybackGrant { platform: PlatformFingerprint::from_bytes([2; 32]), ..playback() });
        let [mine, other] = [mine, other].map(|grant| table.issue_playback(grant, start).unwrap());
        assert_eq!(table.revoke_platforms(&[playback().platform], start), 2);
        assert_eq!(kind(&table, &upload, start), Err(ErrorKind::TokenRevoked));
        assert_eq!(kind(&table, &mine, start), Err(ErrorKind::TokenRevoked));
        assert!(kind(&table, &other, start).is_ok());
        assert!(issue_upload(&table, grant(2), start).is_ok(), "its publication id is free");
    }

    /// What the standard library's tables take: a hash table is at least 7/16 full when it has grown, a B-tree's nodes are half full at
    /// worst; the allocator adds two words.
    #[test]
    fn a_hundred_thousand_live_tokens_fit_in_bounded_memory() {
        let hashed = (size_of::<(TokenDigest, Arc<Issued>)>() + 1) * 16 / 7;
        let ordered = size_of::<(Instant, TokenDigest)>() * 2;
        let shared = size_of::<Issued>() + 4 * size_of::<usize>();
        assert!(hashed + ordered + shared <= TOKEN_MEMORY, "{hashed} + {ordered} + {shared}");
        let (table, start) = (TokenTable::default(), Instant::now());
        let live: Vec<Token> = (0..100_000).map(|_| table.issue_playback(playback(), start).unwrap()).collect();
        assert!(live.iter().all(|token| kind(&table, token, start).is_ok()));
        for _ in live.len()..TABLE_CAPACITY {
            table.issue_playback(playback(), start).unwrap();
        }
        assert_eq!(table.issue_playback(playback(), start).unwrap_err().kind, ErrorKind::Busy);
        assert_eq!(table.len(), TABLE_CAPACITY);
        assert!(live.iter().all(|token| kind(&table, token, start).is_ok()), "no living token makes room");
        let later = start + PLAYBACK_LIFETIME;
        assert!(table.issue_playback(playback(), later).is_ok(), "an expired one does");
        assert_eq!(table.len(), TABLE_CAPACITY);
    }
}
