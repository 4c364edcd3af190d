//! One daemon of ours, started and ended by its pid.

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A running program with its log.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts one of our programs; its output goes to `log`.
    pub fn start(program: &str, arguments: &[&str], log: &Path) -> Self {
        let mut command = Command::new(binary(program));
        command.args(arguments);
        Self::spawn(command, log)
    }

    /// Starts one of our programs in a network namespace.
    pub(crate) fn start_within(namespace: &str, program: &str, arguments: &[&str], log: &Path) -> Self {
        // It becomes the program, with the same pid.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(binary(program)).args(arguments);
        Self::spawn(command, log)
    }

    /// Starts one of our programs on one processor.
    pub(crate) fn start_on(processor: usize, program: &str, arguments: &[&str], log: &Path) -> Self {
        // It becomes the program, with the same pid.
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &processor.to_string()]).arg(binary(program)).args(arguments);
        Self::spawn(command, log)
    }

    /// Starts any program; its output goes to `log`.
    pub fn start_tool(mut command: Command, log: &Path) -> Self {
        command.stdin(Stdio::null());
        Self::spawn(command, log)
    }

    fn spawn(mut command: Command, log: &Path) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { child, log: log.to_owned() }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Ends it as power loss would, and waits until it is gone.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        self.child.wait().unwrap();
    }

    /// Asks it to stop and waits; how long it took. Panics if it has not stopped after `limit` or reports a failure.
    pub fn stop(&mut self, limit: Duration) -> Duration {
        let begun = Instant::now();
        self.signal(Signal::TERM);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}; log:\n{}", self.log());
                return begun.elapsed();
            }
            assert!(begun.elapsed() < limit, "still running after {limit:?}; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The most memory that it has had at a time, in bytes (`VmHWM` of proc(5)).
    pub fn peak_memory_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// What it has in memory now, in bytes (`VmRSS` of proc(5)).
    pub fn memory_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// Its file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Processor time of all its threads, user and system (fields 14 and 15 of proc(5)'s stat), in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name, in brackets, may have spaces.
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Lets this process, and those that it starts, have so many file descriptors. Panics where that is not allowed.
pub fn raise_descriptors(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    assert!(hard >= wanted, "{wanted} file descriptors are needed, and the hard limit is {hard} (ulimit -Hn)");
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// Runs one of our programs to its end.
pub fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(binary(program))
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs one of our programs to its end, from a folder.
pub(crate) fn run_in(folder: &Path, program: &str, arguments: &[&str]) -> Output {
    Command::new(binary(program)).args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

/// Runs one of our programs, which must succeed; what it printed.
pub fn run_ok(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments, &[]);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The built program: it lies beside the benchmarks, or beside the folder of the test programs.
fn binary(program: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folders = own.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join(program)).find(|built| built.exists()).unwrap_or_else(|| {
        panic!("{program} is not built; run `cargo build --workspace --bins` first (make test and make bench do)")
    })
}
