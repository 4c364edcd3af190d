//! What FFmpeg's programs may reach: their input, their work folder, and no network. Enforced by the kernel, whatever a film makes of them.
//!
//! Landlock (Linux 5.13) restricts files, seccomp the system calls that open sockets. Both hold for the thread that asks for them and for the programs that it
//! starts, so each program is started by a thread of its own.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, path_beneath_rules,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

/// The newest rights that are asked for; an older kernel restricts what it knows, at least reading and writing. 3 adds cutting files off.
const RIGHTS: ABI = ABI::V3;

/// Where programs and their libraries are; those that do not exist are left out.
const PROGRAMS: [&str; 8] =
    ["/usr", "/bin", "/lib", "/lib64", "/nix/store", "/opt", "/etc/ld.so.cache", "/etc/alternatives"];

/// How a program that tries to open a socket is answered.
const NO_SOCKETS: u32 = libc::EACCES as u32;

/// System calls that lead out of the process: sockets of any kind, and what would get around these limits. A pair of sockets leads nowhere, and is how the
/// standard library starts a program.
const DENIED: [libc::c_long; 7] = [
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_io_uring_setup,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
];

/// What one program may reach.
#[derive(Debug, Default)]
pub(crate) struct Confinement {
    /// False: nothing is restricted, because the operator said so.
    pub(crate) enforced: bool,
    /// Files that may be read besides the program's own.
    pub(crate) reads: Vec<PathBuf>,
    /// The folder that may be written to.
    pub(crate) work: Option<PathBuf>,
    /// Where the program is, if that is not among the usual places.
    pub(crate) program: Option<PathBuf>,
}

/// A program under way. It is killed when this is dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    /// Ends the thread that started the program, which the kernel takes for its parent, and kills it for whose end.
    _parent: mpsc::SyncSender<()>,
}

impl Confinement {
    /// For a program that reads `input` and writes into `work`.
    pub(crate) fn new(enforced: bool, program: &Path, input: Option<&Path>, work: Option<&Path>) -> Self {
        Self {
            enforced,
            reads: input.map(Path::to_owned).into_iter().collect(),
            work: work.map(Path::to_owned),
            program: program.parent().filter(|folder| folder.is_absolute()).map(Path::to_owned),
        }
    }

    /// Starts the command in a thread that restricts itself first.
    ///
    /// # Errors
    /// The command's, and `Unsupported` where the kernel cannot restrict.
    pub(crate) async fn spawn(self, mut command: Command) -> io::Result<Running> {
        let runtime = tokio::runtime::Handle::current();
        let (tell, told) = oneshot::channel();
        let (parent, end) = mpsc::sync_channel(0);
        std::thread::Builder::new().name("ffmpeg".to_owned()).spawn(move || {
            let _runtime = runtime.enter();
            let started = self.enter().and_then(|()| command.spawn());
            // Nobody listens when the caller has gone: then what was started is killed here.
            drop(tell.send(started));
            // The other end is dropped when the program is of no use any more.
            let _ = end.recv();
        })?;
        let child = told.await.map_err(io::Error::other)??;
        Ok(Running { child, _parent: parent })
    }

    /// Restricts this thread, for ever.
    fn enter(&self) -> io::Result<()> {
        if !self.enforced {
            return Ok(());
        }
        let files = self.restrict_files().map_err(|error| unsupported(&format!("Landlock: {error}")))?;
        if files == RulesetStatus::NotEnforced {
            return Err(unsupported("Landlock is not in it, or not switched on"));
        }
        let filter = socket_filter().map_err(|error| unsupported(&format!("seccomp: {error}")))?;
        seccompiler::apply_filter(&filter).map_err(|error| unsupported(&format!("seccomp: {error}")))
    }

    fn restrict_files(&self) -> Result<RulesetStatus, RulesetError> {
        let programs = PROGRAMS.iter().map(PathBuf::from).chain(self.program.clone());
        let status = Ruleset::default()
            .handle_access(AccessFs::from_all(RIGHTS))?
            .create()?
            .add_rules(path_beneath_rules(programs, AccessFs::from_read(RIGHTS)))?
            .add_rules(path_beneath_rules(&self.reads, AccessFs::from_read(RIGHTS)))?
            .add_rules(path_beneath_rules(["/dev/null"], AccessFs::from_file(RIGHTS)))?
            .add_rules(path_beneath_rules(&self.work, AccessFs::from_all(RIGHTS)))?
            .restrict_self()?;
        Ok(status.ruleset)
    }
}

/// Whether this kernel can restrict programs, tried in a thread that ends.
///
/// # Errors
/// Why not.
pub fn check_confinement() -> io::Result<()> {
    let tried = std::thread::spawn(|| Confinement { enforced: true, ..Confinement::default() }.enter());
    tried.join().map_err(|_| unsupported("the attempt failed"))?
}

fn unsupported(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("the kernel cannot keep FFmpeg from files and network ({why})"))
}

fn socket_filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = DENIED.iter().map(|call| (*call, Vec::new())).collect::<BTreeMap<_, _>>();
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(NO_SOCKETS), arch)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    /// What a shell script says under the confinement of a program that reads `input` and writes into `work`.
    async fn said(script: &str, enforced: bool, folder: &Path) -> String {
        let confinement =
            Confinement::new(enforced, Path::new("sh"), Some(&folder.join("input")), Some(&folder.join("work")));
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(folder.join("work")).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let running = confinement.spawn(command).await.unwrap();
        let output = running.child.wait_with_output().await.unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        std::fs::write(folder.path().join("input"), "film").unwrap();
        std::fs::write(folder.path().join("secret"), "key").unwrap();
        folder
    }

    #[tokio::test]
    async fn a_program_reaches_its_input_and_its_work_folder_only() {
        let folder = folder();
        let script = "cat ../input; cat ../secret; cat /etc/passwd | head -c 1; echo x > ../outside; echo x > inside; ls; echo x >> ../input";
        let said = said(script, true, folder.path()).await;
        assert!(said.contains("film") && said.contains("inside"), "{said}");
        assert!(!said.contains("key") && said.matches("ermission denied").count() == 4, "{said}");
        assert_eq!(std::fs::read_to_string(folder.path().join("input")).unwrap(), "film");
        assert!(!folder.path().join("outside").exists());
    }

    #[tokio::test]
    async fn a_program_opens_no_socket_and_this_process_does() {
        let folder = folder();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected'");
        let told = said(&script, true, folder.path()).await;
        assert!(told.contains("ermission denied") && listener.accept().is_err(), "{told}");
        assert_eq!(said(&script, false, folder.path()).await, "connected\n", "the attempt is one that gets through");
        assert!(listener.accept().is_ok());
        check_confinement().unwrap();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    }

    #[tokio::test]
    async fn a_program_ends_with_whoever_started_it() {
        let command = || {
            let mut command = crate::process::command(
                Path::new("sleep"),
                &crate::limits::Limits::default(),
                std::time::Duration::from_secs(60),
            );
            command.arg("60");
            command
        };
        let running = Confinement::default().spawn(command()).await.unwrap();
        let Running { mut child, _parent: parent } = running;
        let comm = format!("/proc/{}/comm", child.id().unwrap());
        while std::fs::read_to_string(&comm).unwrap() != "sleep\n" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(child.try_wait().unwrap().is_none());
        // As when the node is killed: nothing of it can kill the program any more.
        drop(parent);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), child.wait()).await;
        let status = ended.unwrap().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }
}
