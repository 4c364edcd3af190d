//! What a child says, a line for each.

use std::fmt;

use chunkstore_block::BlockId;

use super::promises::Holding;
use super::publication::Publication;

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
    /// The store says that this was deleted.
    Deleted(Publication),
    /// The store holds this, intact.
    Holds(Holding),
    /// Everything that the store holds has been said, and it can be used.
    Sound,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Put { id: BlockId, length: usize, publication: Publication },
    Refer { id: BlockId, publication: Publication },
    Remove { id: BlockId },
    Delete { publication: Publication },
}

impl Event {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (_, event) = line.split_once(MARK)?;
        let (kind, rest) = event.split_once(' ').unwrap_or((event, ""));
        Some(match kind {
            "begins" => Self::Begins(Action::parse(rest)),
            "done" => Self::Done(Action::parse(rest)),
            "failed" => Self::Failed(rest.to_owned()),
            "deleted" => Self::Deleted(rest.parse().unwrap()),
            "holds" => Self::Holds(parse_holding(rest)),
            "sound" => Self::Sound,
            _ => panic!("not an event: {line}"),
        })
    }
}

impl Action {
    fn parse(action: &str) -> Self {
        let words: Vec<&str> = action.split(' ').collect();
        match words[..] {
            ["put", id, length, publication] => {
                let (length, publication) = (length.parse().unwrap(), publication.parse().unwrap());
                Self::Put { id: id.parse().unwrap(), length, publication }
            }
            ["refer", id, publication] => {
                Self::Refer { id: id.parse().unwrap(), publication: publication.parse().unwrap() }
            }
            ["remove", id] => Self::Remove { id: id.parse().unwrap() },
            ["delete", publication] => Self::Delete { publication: publication.parse().unwrap() },
            _ => panic!("not an action: {action}"),
        }
    }
}

fn parse_holding(holding: &str) -> Holding {
    let mut words = holding.split(' ');
    Holding {
        id: words.next().unwrap().parse().unwrap(),
        length: words.next().unwrap().parse().unwrap(),
        publications: words.map(|publication| publication.parse().unwrap()).collect(),
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MARK)?;
        match self {
            Self::Begins(action) => write!(f, "begins {action}"),
            Self::Done(action) => write!(f, "done {action}"),
            Self::Failed(reason) => write!(f, "failed {}", reason.replace('\n', " ")),
            Self::Deleted(publication) => write!(f, "deleted {publication}"),
            Self::Holds(Holding { id, length, publications }) => {
                write!(f, "holds {id} {length}")?;
                publications.iter().try_for_each(|publication| write!(f, " {publication}"))
            }
            Self::Sound => write!(f, "sound"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { id, length, publication } => write!(f, "put {id} {length} {publication}"),
            Self::Refer { id, publication } => write!(f, "refer {id} {publication}"),
            Self::Remove { id } => write!(f, "remove {id}"),
            Self::Delete { publication } => write!(f, "delete {publication}"),
        }
    }
}
