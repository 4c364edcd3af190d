//! Mounts a [`Disk`] by FUSE. The kernel must not keep writes back (no `FUSE_WRITEBACK_CACHE`), so that each reaches
//! the disk when the program makes it and the disk alone decides what survives.
//!
//! The process that serves the mount must not map its files: a page fault that waits for this process in this process
//! may wait forever. So other processes use the store.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use tempfile::TempDir;

use crate::disk::{Disk, Inode, Refusal, Status};
use crate::file::PAGE_BYTES;

/// The kernel is the only one that changes anything, so what it knows stays true.
const KNOWN_FOR: Duration = Duration::from_secs(3_600);
/// What `statfs` says is free.
const FREE_BYTES: u64 = 1 << 40;
/// Linux: `linux/falloc.h`.
const FALLOC_FL_KEEP_SIZE: i32 = 1;
const FALLOC_FL_PUNCH_HOLE: i32 = 2;
/// Linux: `asm-generic/fcntl.h`; `O_SYNC` has this bit too.
const O_DSYNC: i32 = 0o10000;

type Listing = Vec<(Inode, FileType, OsString)>;

/// A disk that is used by the threads of a mount and by a test.
#[derive(Clone, Debug)]
pub(crate) struct Drive(Arc<(Mutex<Disk>, Condvar)>);

/// Unmounts when it goes.
#[derive(Debug)]
pub(crate) struct Mount {
    session: Option<BackgroundSession>,
    folder: TempDir,
    drive: Drive,
}

/// The kernel's requests, answered from the disk.
struct Server {
    drive: Drive,
    /// What a program that reads a folder is shown, whatever changes meanwhile.
    listings: Mutex<BTreeMap<u64, Listing>>,
}

impl Drive {
    pub(crate) fn new() -> Self {
        Self(Arc::new((Mutex::new(Disk::new()), Condvar::new())))
    }

    pub(crate) fn run<T>(&self, act: impl FnOnce(&mut Disk) -> T) -> T {
        let mut disk = self.0.0.lock().unwrap();
        let result = act(&mut disk);
        if !disk.has_power() {
            self.0.1.notify_all();
        }
        result
    }

    pub(crate) fn wait_until_off(&self) {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |disk| disk.has_power()).unwrap());
    }
}

impl Mount {
    /// Panics where FUSE is not to be had: a test that cannot run must not pass.
    pub(crate) fn new(drive: &Drive) -> Self {
        let folder = TempDir::with_prefix("imira-power-").unwrap();
        let server = Server { drive: drive.clone(), listings: Mutex::default() };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("imira-power".to_owned())];
        let session = fuser::spawn_mount(server, folder.path(), &config).unwrap_or_else(|error| {
            panic!(
                "this test mounts a file system and cannot: {error}. It needs FUSE (/dev/fuse) and either root or \
                 fusermount3 (Debian: fuse3)"
            )
        });
        Self { session: Some(session), folder, drive: drive.clone() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The programs that used it must have ended.
    pub(crate) fn unmount(mut self) {
        match self.session.take().unwrap().umount_and_join() {
            // The kernel was faster than the thread that asks it for requests.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            unmounted => unmounted.unwrap(),
        }
    }
}

impl Drop for Mount {
    /// After a failure. Without power no program hangs in the mount.
    fn drop(&mut self) {
        self.drive.run(Disk::cut_power);
        if let Some(session) = self.session.take() {
            drop(session);
        }
    }
}

impl Server {
    fn status(&self, inode: Inode) -> Result<FileAttr, Errno> {
        self.drive.run(|disk| disk.status(inode)).map(|status| attributes(&status)).map_err(errno)
    }

    fn look_up(&self, folder: Inode, name: &OsStr) -> Result<FileAttr, Errno> {
        let found = self.drive.run(|disk| disk.status(disk.look_up(folder, name)?));
        found.map(|status| attributes(&status)).map_err(errno)
    }

    fn listing(&self, folder: Inode) -> Result<Listing, Refusal> {
        self.drive.run(|disk| {
            let entries = disk.entries(folder)?.into_iter().map(|(name, inode)| {
                let kind = kind(disk.status(inode)?.is_folder);
                Ok((inode, kind, name))
            });
            let dots = [".", ".."].map(|name| Ok((folder, FileType::Directory, name.into())));
            dots.into_iter().chain(entries).collect()
        })
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.look_up(parent.0, name), reply);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attr(self.status(inode.0), reply);
    }

    /// Owners, rights and times are not kept.
    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let resized = size.map_or(Ok(()), |size| self.drive.run(|disk| disk.resize(inode.0, size)));
        attr(resized.map_err(errno).and_then(|()| self.status(inode.0)), reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        let made = self.drive.run(|disk| disk.make_folder(parent.0, name));
        entry(made.map_err(errno).and_then(|inode| self.status(inode)), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.drive.run(|disk| disk.create(parent.0, name));
        match made.map_err(errno).and_then(|inode| self.status(inode)) {
            Ok(attributes) => {
                let flags = FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&KNOWN_FOR, &attributes, Generation(0), FileHandle(0), flags);
            }
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.status(inode.0) {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.drive.run(|disk| disk.unlink(parent.0, name)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.drive.run(|disk| disk.remove_folder(parent.0, name)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        done(self.drive.run(|disk| disk.rename((parent.0, name), (new_parent.0, new_name))), reply);
    }

    fn link(&self, _: &Request, inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let linked = self.drive.run(|disk| disk.link(inode.0, parent.0, name));
        entry(linked.map_err(errno).and_then(|()| self.status(inode.0)), reply);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.drive.run(|disk| disk.read(inode.0, offset, size.into())) {
            Ok(bytes) => reply.data(&bytes),
            Err(refusal) => reply.error(errno(refusal)),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let is_synced = flags.0 & O_DSYNC != 0;
        let written = self.drive.run(|disk| {
            disk.write(inode.0, offset, bytes)?;
            if is_synced { disk.sync_file(inode.0) } else { Ok(()) }
        });
        match written {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(refusal) => reply.error(errno(refusal)),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        const PUNCH: i32 = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        match mode {
            0 => done(self.drive.run(|disk| disk.extend(inode.0, offset + length)), reply),
            FALLOC_FL_KEEP_SIZE => reply.ok(),
            PUNCH => done(self.drive.run(|disk| disk.punch(inode.0, offset, length)), reply),
            _ => reply.error(Errno::EOPNOTSUPP),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        done(self.drive.run(|disk| disk.sync_file(inode.0)), reply);
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        done(self.drive.run(|disk| disk.sync_folder(inode.0)), reply);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut listings = self.listings.lock().unwrap();
        let handle = listings.last_key_value().map_or(0, |(last, _)| last + 1);
        listings.insert(handle, Vec::new());
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(&self, _: &Request, inode: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut listings = self.listings.lock().unwrap();
        if offset == 0 {
            match self.listing(inode.0) {
                Ok(listing) => drop(listings.insert(handle.0, listing)),
                Err(refusal) => return reply.error(errno(refusal)),
            }
        }
        let listing = listings.get(&handle.0).map_or(&[][..], Vec::as_slice);
        for (place, (inode, kind, name)) in listing.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(*inode), place as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().unwrap().remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (blocks, files, longest_name) = (FREE_BYTES / PAGE_BYTES, 1 << 30, 255);
        let block_bytes = PAGE_BYTES as u32;
        reply.statfs(blocks, blocks, blocks, files, files, block_bytes, longest_name, block_bytes);
    }
}

fn done(result: Result<(), Refusal>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(refusal) => reply.error(errno(refusal)),
    }
}

fn entry(result: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match result {
        Ok(attributes) => reply.entry(&KNOWN_FOR, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn attr(result: Result<FileAttr, Errno>, reply: ReplyAttr) {
    match result {
        Ok(attributes) => reply.attr(&KNOWN_FOR, &attributes),
        Err(error) => reply.error(error),
    }
}

fn errno(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::PowerIsOff | Refusal::Broken => Errno::EIO,
        Refusal::NoSpace => Errno::ENOSPC,
        Refusal::NotFound => Errno::ENOENT,
        Refusal::Exists => Errno::EEXIST,
        Refusal::NotEmpty => Errno::ENOTEMPTY,
        Refusal::NotAFolder => Errno::ENOTDIR,
        Refusal::IsAFolder => Errno::EISDIR,
    }
}

fn attributes(status: &Status) -> FileAttr {
    FileAttr {
        ino: INodeNo(status.inode),
        size: status.size,
        blocks: status.allocated / 512,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: kind(status.is_folder),
        perm: if status.is_folder { 0o755 } else { 0o644 },
        nlink: status.links,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PAGE_BYTES as u32,
        flags: 0,
    }
}

fn kind(is_folder: bool) -> FileType {
    if is_folder { FileType::Directory } else { FileType::RegularFile }
}
