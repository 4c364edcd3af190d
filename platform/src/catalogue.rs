//! What a content is to the platform: its states, who may see it, and how it is named in a request. Pure.

use serde::{Deserialize, Serialize};

/// Where a content stands (`docs/api.md` §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Registered; the file has not arrived.
    Pending,
    /// The node has the file, or is receiving it.
    Processing,
    /// Stored and playable by its owner.
    Ready,
    /// Playable by whoever the visibility admits.
    Published,
    /// Given up, with an error that says why.
    Rejected,
}

impl State {
    /// The name in the database and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Ready => "ready",
            Self::Published => "published",
            Self::Rejected => "rejected",
        }
    }

    /// Reads what [`State::as_str`] wrote; `None` for anything else.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Pending, Self::Processing, Self::Ready, Self::Published, Self::Rejected]
            .into_iter()
            .find(|state| state.as_str() == name)
    }

    /// Whether a node is still at work on it, so that it must be watched.
    #[must_use]
    pub fn is_unfinished(self) -> bool {
        matches!(self, Self::Pending | Self::Processing)
    }

    /// The order of states: forward only, and out of `rejected` and `published` there is no way.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Pending => matches!(next, Self::Processing | Self::Ready | Self::Rejected),
            Self::Processing => matches!(next, Self::Ready | Self::Rejected),
            Self::Ready => next == Self::Published,
            Self::Published | Self::Rejected => false,
        }
    }
}

/// Whom a published content is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Everybody, and it is listed.
    Public,
    /// Everybody who has the address; it is not listed.
    Unlisted,
    /// Its owner.
    Owner,
}

impl Visibility {
    /// The name in the database and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Unlisted => "unlisted",
            Self::Owner => "owner",
        }
    }

    /// Reads what [`Visibility::as_str`] wrote; `None` for anything else.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Public, Self::Unlisted, Self::Owner].into_iter().find(|visibility| visibility.as_str() == name)
    }
}

/// Whether the page and the state of a content may be shown: the owner sees it always, others once it is
/// published for them.
#[must_use]
pub fn may_see(state: State, visibility: Visibility, is_owner: bool) -> bool {
    is_owner || (state == State::Published && visibility != Visibility::Owner)
}

/// Whether a content may be played: as [`may_see`], and it must be stored.
#[must_use]
pub fn may_play(state: State, visibility: Visibility, is_owner: bool) -> bool {
    matches!(state, State::Ready | State::Published) && may_see(state, visibility, is_owner)
}

/// Whether a content belongs in somebody's list: all of their own, and what is published and public.
#[must_use]
pub fn may_list(state: State, visibility: Visibility, is_owner: bool) -> bool {
    is_owner || (state == State::Published && visibility == Visibility::Public)
}

/// `{content}` in a path: a publication id (32 hex digits) or a content key (64).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentName {
    /// One publication.
    Publication(String),
    /// Any publication of these bytes.
    Key(String),
}

impl ContentName {
    /// Reads lowercase hex of either length; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.len() {
            32 if is_lower_hex(text) => Some(Self::Publication(text.to_owned())),
            64 if is_lower_hex(text) => Some(Self::Key(text.to_owned())),
            _ => None,
        }
    }
}

/// Whether a text is made of `0-9a-f` only.
#[must_use]
pub fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 5] = [State::Pending, State::Processing, State::Ready, State::Published, State::Rejected];

    #[test]
    fn names_are_read_back() {
        for state in STATES {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("gone"), None);
        for visibility in [Visibility::Public, Visibility::Unlisted, Visibility::Owner] {
            assert_eq!(Visibility::parse(visibility.as_str()), Some(visibility));
        }
    }

    #[test]
    fn states_go_forward_only() {
        assert!(State::Pending.may_become(State::Processing));
        assert!(State::Processing.may_become(State::Ready));
        assert!(State::Ready.may_become(State::Published));
        for state in STATES {
            assert!(!state.may_become(State::Pending));
            assert!(!state.may_become(state), "{state:?} to itself");
            assert!(!State::Rejected.may_become(state));
            assert!(!State::Published.may_become(state));
        }
        assert!(!State::Pending.may_become(State::Published));
        assert!(!State::Ready.may_become(State::Rejected));
    }

    #[test]
    fn strangers_see_only_what_is_published_for_them() {
        for state in STATES {
            let published = state == State::Published;
            assert_eq!(may_see(state, Visibility::Public, false), published);
            assert_eq!(may_see(state, Visibility::Unlisted, false), published);
            assert!(!may_see(state, Visibility::Owner, false));
            assert_eq!(may_list(state, Visibility::Public, false), published);
            assert!(!may_list(state, Visibility::Unlisted, false));
            assert!(!may_list(state, Visibility::Owner, false));
        }
    }

    #[test]
    fn the_owner_plays_from_ready_on() {
        for state in STATES {
            assert!(may_see(state, Visibility::Owner, true));
            assert!(may_list(state, Visibility::Owner, true));
            let stored = matches!(state, State::Ready | State::Published);
            assert_eq!(may_play(state, Visibility::Owner, true), stored);
        }
        assert!(!may_play(State::Ready, Visibility::Public, false));
        assert!(may_play(State::Published, Visibility::Unlisted, false));
    }

    #[test]
    fn content_names_are_hex_of_two_lengths() {
        let key = "ab".repeat(32);
        let publication = "0f".repeat(16);
        assert_eq!(ContentName::parse(&key), Some(ContentName::Key(key.clone())));
        assert_eq!(ContentName::parse(&publication), Some(ContentName::Publication(publication)));
        assert_eq!(ContentName::parse(&key.to_uppercase()), None);
        assert_eq!(ContentName::parse("abc"), None);
        assert_eq!(ContentName::parse(&"é".repeat(16)), None);
    }
}
