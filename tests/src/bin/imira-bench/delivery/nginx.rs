//! nginx as the reference: secure_link in front of a file, and a proxy in front of another nginx.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{Process, Stage};

use super::SERVERS;

const SECRET: &str = "a secret of the benchmark";
const START_LIMIT: Duration = Duration::from_secs(20);

/// One nginx, a single process on the servers' processor, so that whose time it takes is known.
pub(super) struct Nginx {
    process: Process,
    address: SocketAddr,
}

/// How it sends a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sendfile {
    On,
    Off,
}

impl Nginx {
    /// Serves the files of `root` to whoever has a link with a good signature.
    pub(super) fn gated(stage: &Stage, root: &Path, sendfile: Sendfile) -> Result<Self> {
        let sendfile = if sendfile == Sendfile::On { "on" } else { "off" };
        let location = format!(
            "sendfile {sendfile}; open_file_cache max=1000; root {};
             secure_link $arg_md5,$arg_expires;
             secure_link_md5 \"$secure_link_expires$uri {SECRET}\";
             if ($secure_link = \"\") {{ return 403; }}
             if ($secure_link = \"0\") {{ return 410; }}",
            root.display()
        );
        Self::start(stage, &format!("gated-{sendfile}"), "", &location)
    }

    /// Passes everything on to another one, over connections that are kept.
    pub(super) fn proxy(stage: &Stage, to: &Self) -> Result<Self> {
        let upstream = format!("upstream origin {{ server {}; keepalive 128; }}", to.address);
        let location = "proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\";";
        Self::start(stage, "proxy", &upstream, location)
    }

    fn start(stage: &Stage, name: &str, upstream: &str, location: &str) -> Result<Self> {
        let (folder, address) = (stage.path(&format!("nginx-{name}")), stage.free_address());
        fs::create_dir_all(&folder)?;
        let configuration = format!(
            "daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
             events {{ worker_connections 4096; }}
             http {{
               access_log off; keepalive_requests 100000000; keepalive_timeout 60;
               client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
               uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
               {upstream}
               server {{ listen {address}; location / {{ {location} }} }}
             }}",
            folder = folder.display()
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration)?;
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &SERVERS.to_string(), "nginx", "-p"]).arg(&folder).arg("-c").arg(&file);
        let process = Process::start_tool(command, &folder.join("log"));
        let started = Self { process, address };
        let begun = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            ensure!(begun.elapsed() < START_LIMIT, "nginx does not start: {}", started.process.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(started)
    }

    /// A link to a file that is good for an hour.
    pub(super) fn link(&self, path: &str) -> Result<String> {
        let expires = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() + 3_600;
        let signature = md5_base64url(&format!("{expires}/{path} {SECRET}"))?;
        Ok(format!("http://{}/{path}?md5={signature}&expires={expires}", self.address))
    }

    /// A link of another one, asked for here.
    pub(super) fn instead_of(&self, other: &Self, link: &str) -> String {
        link.replace(&other.address.to_string(), &self.address.to_string())
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }
}

/// nginx's secure_link knows no other hash.
fn md5_base64url(text: &str) -> Result<String> {
    let script = "printf %s \"$1\" | openssl md5 -binary | openssl base64 | tr +/ -_ | tr -d '=\\n'";
    let output = Command::new("sh").args(["-c", script, "sh", text]).output().context("openssl cannot be run")?;
    ensure!(output.status.success() && output.stdout.len() == 22, "openssl failed");
    Ok(String::from_utf8(output.stdout)?)
}

/// Writes bodies as files `0`, `1`, and so on.
pub(super) fn write_files(stage: &Stage, name: &str, bodies: &[bytes::Bytes]) -> Result<PathBuf> {
    let folder = stage.path(name);
    fs::create_dir_all(&folder)?;
    for (number, body) in bodies.iter().enumerate() {
        fs::write(folder.join(number.to_string()), body)?;
    }
    Ok(folder)
}
