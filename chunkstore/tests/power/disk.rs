//! A disk with a file system on it whose power can be cut. It keeps what POSIX promises and no more: the content of a
//! file survives once the file was synced, its name once the folder was. Pure: what happens depends on calls and seeds.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use crate::file::File;
use crate::worker::chance::Chance;

/// Names a file or a folder.
pub(crate) type Inode = u64;

pub(crate) const ROOT: Inode = 1;

type Entries = BTreeMap<OsString, Inode>;

#[derive(Debug)]
pub(crate) struct Disk {
    nodes: BTreeMap<Inode, Node>,
    last_inode: Inode,
    /// Changes of folders that were not synced, oldest first.
    journal: Vec<Change>,
    honesty: Honesty,
    power: Power,
    faults: Option<Faults>,
}

/// Now and then a file cannot be written, made longer or synced.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    pub(crate) chance: Chance,
    /// One of so many changes fails.
    pub(crate) one_of: u64,
    /// Only of files whose names end so.
    pub(crate) suffix: &'static str,
}

/// Whether a sync does what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Honesty {
    Honest,
    /// Nothing of a file is synced.
    LiesAboutFiles,
    /// Nothing of a folder is synced.
    LiesAboutFolders,
}

/// What a power cut leaves of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    Nothing,
    /// By this seed: some pages and sectors in any order, and the first so many changes of folders.
    Some(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    /// Goes off at the change after so many more.
    FailsAfter(u64),
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    PowerIsOff,
    NotFound,
    Exists,
    NotEmpty,
    NotAFolder,
    IsAFolder,
    NoSpace,
    Broken,
}

/// What there is to know of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) inode: Inode,
    pub(crate) is_folder: bool,
    pub(crate) size: u64,
    pub(crate) allocated: u64,
    pub(crate) links: u32,
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    /// How many names it has now.
    links: u32,
}

#[derive(Debug)]
enum Kind {
    File(File),
    Folder(Folder),
}

#[derive(Debug, Default)]
struct Folder {
    now: Entries,
    durable: Entries,
}

/// What the entries of one or two folders become, all of them or none.
#[derive(Clone, Debug)]
struct Change(Vec<(Inode, OsString, Option<Inode>)>);

impl Disk {
    pub(crate) fn new() -> Self {
        let root = Node { kind: Kind::Folder(Folder::default()), links: 1 };
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            last_inode: ROOT,
            journal: Vec::new(),
            honesty: Honesty::Honest,
            power: Power::On,
            faults: None,
        }
    }

    pub(crate) fn set_faults(&mut self, faults: Option<Faults>) {
        self.faults = faults;
    }

    pub(crate) fn set_honesty(&mut self, honesty: Honesty) {
        self.honesty = honesty;
    }

    /// The power fails when so many more changes have been made; syncs count as changes.
    pub(crate) fn fail_after(&mut self, changes: u64) {
        self.power = Power::FailsAfter(changes);
    }

    pub(crate) fn cut_power(&mut self) {
        self.power = Power::Off;
    }

    pub(crate) fn has_power(&self) -> bool {
        self.power != Power::Off
    }

    /// The power comes back: what the disk holds now is what survived, and all of it is durable.
    pub(crate) fn start_again(&mut self, leaves: Leaves) {
        self.power = Power::On;
        let mut chance = match leaves {
            Leaves::Nothing => None,
            Leaves::Some(seed) => Some(Chance::new(seed)),
        };
        let survive = chance.as_mut().map_or(0, |chance| chance.below(self.journal.len() as u64 + 1));
        for change in std::mem::take(&mut self.journal).into_iter().take(survive as usize) {
            self.make_durable(change);
        }
        self.forget_unreachable();
        for node in self.nodes.values_mut() {
            node.links = 0;
            match &mut node.kind {
                Kind::File(file) => *file = file.survivor(chance.as_mut()),
                Kind::Folder(folder) => folder.now = folder.durable.clone(),
            }
        }
        self.count_links();
    }

    pub(crate) fn status(&self, inode: Inode) -> Result<Status, Refusal> {
        let node = self.node(inode)?;
        let (is_folder, size, allocated) = match &node.kind {
            Kind::File(file) => (false, file.size(), file.allocated()),
            Kind::Folder(_) => (true, 0, 0),
        };
        Ok(Status { inode, is_folder, size, allocated, links: node.links })
    }

    pub(crate) fn look_up(&self, folder: Inode, name: &OsStr) -> Result<Inode, Refusal> {
        self.folder(folder)?.now.get(name).copied().ok_or(Refusal::NotFound)
    }

    pub(crate) fn entries(&self, folder: Inode) -> Result<Vec<(OsString, Inode)>, Refusal> {
        Ok(self.folder(folder)?.now.iter().map(|(name, inode)| (name.clone(), *inode)).collect())
    }

    pub(crate) fn create(&mut self, folder: Inode, name: &OsStr) -> Result<Inode, Refusal> {
        self.add(folder, name, Kind::File(File::default()))
    }

    pub(crate) fn make_folder(&mut self, folder: Inode, name: &OsStr) -> Result<Inode, Refusal> {
        self.add(folder, name, Kind::Folder(Folder::default()))
    }

    pub(crate) fn link(&mut self, inode: Inode, folder: Inode, name: &OsStr) -> Result<(), Refusal> {
        self.begin_change()?;
        self.file(inode)?;
        self.must_be_free(folder, name)?;
        self.change(vec![(folder, name.to_owned(), Some(inode))])
    }

    pub(crate) fn unlink(&mut self, folder: Inode, name: &OsStr) -> Result<(), Refusal> {
        self.begin_change()?;
        self.file(self.look_up(folder, name)?)?;
        self.change(vec![(folder, name.to_owned(), None)])
    }

    pub(crate) fn remove_folder(&mut self, folder: Inode, name: &OsStr) -> Result<(), Refusal> {
        self.begin_change()?;
        self.must_be_empty(self.look_up(folder, name)?)?;
        self.change(vec![(folder, name.to_owned(), None)])
    }

    /// Takes the place of what has the new name, as POSIX has it.
    pub(crate) fn rename(&mut self, from: (Inode, &OsStr), to: (Inode, &OsStr)) -> Result<(), Refusal> {
        self.begin_change()?;
        let inode = self.look_up(from.0, from.1)?;
        if let Ok(replaced) = self.look_up(to.0, to.1) {
            match (self.status(inode)?.is_folder, self.status(replaced)?.is_folder) {
                _ if replaced == inode => return Ok(()),
                (true, true) => self.must_be_empty(replaced)?,
                (false, false) => {}
                (true, false) => return Err(Refusal::NotAFolder),
                (false, true) => return Err(Refusal::IsAFolder),
            }
        }
        self.change(vec![(from.0, from.1.to_owned(), None), (to.0, to.1.to_owned(), Some(inode))])
    }

    pub(crate) fn read(&self, inode: Inode, offset: u64, length: u64) -> Result<Vec<u8>, Refusal> {
        Ok(self.file(inode)?.read(offset, length))
    }

    pub(crate) fn write(&mut self, inode: Inode, offset: u64, bytes: &[u8]) -> Result<(), Refusal> {
        self.begin_change()?;
        self.refuse_if_faulty(inode)?;
        self.file_mut(inode)?.write(offset, bytes);
        Ok(())
    }

    pub(crate) fn resize(&mut self, inode: Inode, size: u64) -> Result<(), Refusal> {
        self.begin_change()?;
        self.file_mut(inode)?.resize(size);
        Ok(())
    }

    pub(crate) fn extend(&mut self, inode: Inode, size: u64) -> Result<(), Refusal> {
        self.begin_change()?;
        self.refuse_if_faulty(inode)?;
        self.file_mut(inode)?.extend(size);
        Ok(())
    }

    pub(crate) fn punch(&mut self, inode: Inode, offset: u64, length: u64) -> Result<(), Refusal> {
        self.begin_change()?;
        self.file_mut(inode)?.punch(offset, length);
        Ok(())
    }

    /// Content and size of the file are durable, its name is not. After a fault nothing of what was written since the last
    /// sync will ever be, though programs read it as long as there is power: so Linux does ("fsyncgate").
    pub(crate) fn sync_file(&mut self, inode: Inode) -> Result<(), Refusal> {
        self.begin_change()?;
        if let Err(refusal) = self.refuse_if_faulty(inode) {
            self.file_mut(inode)?.forget_unsynced();
            return Err(refusal);
        }
        let is_lie = self.honesty == Honesty::LiesAboutFiles;
        let file = self.file_mut(inode)?;
        if !is_lie {
            file.sync();
        }
        Ok(())
    }

    /// The folder's entries are durable, and changes of other folders that came before and belong to the same story.
    pub(crate) fn sync_folder(&mut self, inode: Inode) -> Result<(), Refusal> {
        self.begin_change()?;
        self.folder(inode)?;
        if self.honesty == Honesty::LiesAboutFolders {
            return Ok(());
        }
        let mut synced = BTreeSet::from([inode]);
        let mut chosen: Vec<bool> = Vec::new();
        for change in self.journal.iter().rev() {
            let is_chosen = change.folders().any(|folder| synced.contains(&folder));
            if is_chosen {
                synced.extend(change.folders());
            }
            chosen.push(is_chosen);
        }
        let mut chosen = chosen.into_iter().rev();
        let (durable, pending) =
            std::mem::take(&mut self.journal).into_iter().partition(|_| chosen.next().unwrap_or_default());
        self.journal = pending;
        Vec::into_iter(durable).for_each(|change| self.make_durable(change));
        Ok(())
    }

    /// Every change begins here, so that the power may fail before it.
    fn begin_change(&mut self) -> Result<(), Refusal> {
        self.power = match self.power {
            Power::On => Power::On,
            Power::FailsAfter(0) | Power::Off => Power::Off,
            Power::FailsAfter(changes) => Power::FailsAfter(changes - 1),
        };
        if self.has_power() { Ok(()) } else { Err(Refusal::PowerIsOff) }
    }

    fn refuse_if_faulty(&mut self, inode: Inode) -> Result<(), Refusal> {
        let Some(mut faults) = self.faults.clone() else { return Ok(()) };
        let is_due = faults.chance.below(faults.one_of) == 0;
        let refusal = *faults.chance.pick(&[Refusal::NoSpace, Refusal::Broken]);
        let suffix = faults.suffix;
        self.faults = Some(faults);
        if is_due && self.has_name(inode, suffix) { Err(refusal) } else { Ok(()) }
    }

    fn has_name(&self, inode: Inode, suffix: &str) -> bool {
        let folders = self.nodes.keys().filter_map(|folder| self.folder(*folder).ok());
        let mut names = folders.flat_map(|folder| &folder.now).filter(|(_, named)| **named == inode);
        names.any(|(name, _)| name.as_encoded_bytes().ends_with(suffix.as_bytes()))
    }

    fn add(&mut self, folder: Inode, name: &OsStr, kind: Kind) -> Result<Inode, Refusal> {
        self.begin_change()?;
        self.must_be_free(folder, name)?;
        self.last_inode += 1;
        let inode = self.last_inode;
        self.nodes.insert(inode, Node { kind, links: 0 });
        self.change(vec![(folder, name.to_owned(), Some(inode))])?;
        Ok(inode)
    }

    /// Changes entries as programs see them, and remembers it for the time of a sync.
    fn change(&mut self, entries: Vec<(Inode, OsString, Option<Inode>)>) -> Result<(), Refusal> {
        for (folder, name, inode) in &entries {
            let replaced = set_entry(&mut self.folder_mut(*folder)?.now, name, *inode);
            if let Some(node) = replaced.and_then(|inode| self.nodes.get_mut(&inode)) {
                node.links -= 1;
            }
            if let Some(node) = inode.and_then(|inode| self.nodes.get_mut(&inode)) {
                node.links += 1;
            }
        }
        self.journal.push(Change(entries));
        Ok(())
    }

    fn make_durable(&mut self, change: Change) {
        for (folder, name, inode) in change.0 {
            if let Ok(folder) = self.folder_mut(folder) {
                set_entry(&mut folder.durable, &name, inode);
            }
        }
    }

    fn forget_unreachable(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut waiting = vec![ROOT];
        while let Some(inode) = waiting.pop() {
            let Ok(folder) = self.folder(inode) else { continue };
            waiting.extend(folder.durable.values().filter(|inode| reached.insert(**inode)));
        }
        self.nodes.retain(|inode, _| reached.contains(inode));
    }

    fn count_links(&mut self) {
        let folders = self.nodes.keys().filter_map(|inode| self.folder(*inode).ok());
        let named: Vec<Inode> = folders.flat_map(|folder| folder.now.values().copied()).chain([ROOT]).collect();
        for inode in named {
            if let Some(node) = self.nodes.get_mut(&inode) {
                node.links += 1;
            }
        }
    }

    fn must_be_free(&self, folder: Inode, name: &OsStr) -> Result<(), Refusal> {
        if self.folder(folder)?.now.contains_key(name) { Err(Refusal::Exists) } else { Ok(()) }
    }

    fn must_be_empty(&self, folder: Inode) -> Result<(), Refusal> {
        if self.folder(folder)?.now.is_empty() { Ok(()) } else { Err(Refusal::NotEmpty) }
    }

    /// Reading needs power too.
    fn node(&self, inode: Inode) -> Result<&Node, Refusal> {
        if !self.has_power() {
            return Err(Refusal::PowerIsOff);
        }
        self.nodes.get(&inode).ok_or(Refusal::NotFound)
    }

    fn file(&self, inode: Inode) -> Result<&File, Refusal> {
        match &self.node(inode)?.kind {
            Kind::File(file) => Ok(file),
            Kind::Folder(_) => Err(Refusal::IsAFolder),
        }
    }

    fn file_mut(&mut self, inode: Inode) -> Result<&mut File, Refusal> {
        match self.nodes.get_mut(&inode).map(|node| &mut node.kind) {
            Some(Kind::File(file)) => Ok(file),
            Some(Kind::Folder(_)) => Err(Refusal::IsAFolder),
            None => Err(Refusal::NotFound),
        }
    }

    fn folder(&self, inode: Inode) -> Result<&Folder, Refusal> {
        match &self.nodes.get(&inode).ok_or(Refusal::NotFound)?.kind {
            Kind::Folder(folder) if self.has_power() => Ok(folder),
            Kind::Folder(_) => Err(Refusal::PowerIsOff),
            Kind::File(_) => Err(Refusal::NotAFolder),
        }
    }

    fn folder_mut(&mut self, inode: Inode) -> Result<&mut Folder, Refusal> {
        match self.nodes.get_mut(&inode).map(|node| &mut node.kind) {
            Some(Kind::Folder(folder)) => Ok(folder),
            Some(Kind::File(_)) => Err(Refusal::NotAFolder),
            None => Err(Refusal::NotFound),
        }
    }
}

impl Change {
    fn folders(&self) -> impl Iterator<Item = Inode> {
        self.0.iter().map(|(folder, ..)| *folder)
    }
}

/// Returns what had the name.
fn set_entry(entries: &mut Entries, name: &OsStr, inode: Option<Inode>) -> Option<Inode> {
    match inode {
        Some(inode) => entries.insert(name.to_owned(), inode),
        None => entries.remove(name),
    }
}
