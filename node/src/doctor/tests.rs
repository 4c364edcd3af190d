use super::*;
use crate::files::Folder;
use crate::network::write_network;
use dht::{Authority, Membership, Network};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

struct Patient {
    _root: tempfile::TempDir,
    args: DoctorArgs,
}

impl Patient {
    fn new(authority: Option<&Authority>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (network, folder) = (root.path().join("net.toml"), root.path().join("node"));
        let mut made = Network::generate().unwrap();
        if let Some(authority) = authority {
            let members = Membership::new(made.id(), vec![authority.public()], None, Arc::new(|| 0)).unwrap();
            made = made.with_membership(Arc::new(members));
        }
        write_network(&network, &made).unwrap();
        let [listen, delivery, control] = free_addresses();
        let config = Config { listen, delivery, control, quota_bytes: 1, ..Config::default() };
        DataDir::create(&folder, &config, &network, &[]).unwrap();
        Self { _root: root, args: DoctorArgs { folder: Folder { data: folder, config: None }, control: None } }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.args.folder.data.join(name)
    }

    fn config(&self) -> Config {
        DataDir::open(&self.args.folder.data).unwrap().config().unwrap()
    }

    async fn examined(&self) -> Vec<Finding> {
        examine(&self.args).await
    }
}

fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

fn find<'f>(findings: &'f [Finding], what: &str) -> &'f Finding {
    findings.iter().find(|finding| finding.what == what).unwrap_or_else(|| panic!("nothing of {what}: {findings:?}"))
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_new_node_is_well_but_for_what_nobody_can_tell() {
    let patient = Patient::new(None);
    let findings = patient.examined().await;
    for what in
        ["data folder", "configuration", "identity", "network", "membership", "clock", "ports", "disk", "ffmpeg"]
    {
        assert_eq!(find(&findings, what).state, State::Well, "{what}: {findings:?}");
    }
    assert_eq!(find(&findings, "platforms").state, State::Warning);
    // It is alone, so nobody can try to reach it.
    assert_eq!(find(&findings, "reachability").state, State::Unknown);
    assert_eq!(verdict(&findings), UNKNOWN);
    for finding in &findings {
        assert_eq!(finding.remedy.is_none(), finding.state == State::Well, "{finding}");
    }
}

#[tokio::test]
async fn what_is_broken_in_the_folder_is_named_with_a_remedy() {
    let broken = |what: &'static str, spoil: fn(&Patient)| async move {
        let patient = Patient::new(None);
        spoil(&patient);
        let findings = patient.examined().await;
        let finding = find(&findings, what);
        assert_eq!(finding.state, State::Failure, "{finding}");
        assert!(finding.remedy.as_ref().is_some_and(|remedy| !remedy.is_empty()), "{finding}");
        assert_eq!(verdict(&findings), TO_MEND);
        finding.to_string()
    };
    broken("data folder", |patient| std::fs::remove_file(patient.file("config.toml")).unwrap()).await;
    broken("configuration", |patient| std::fs::write(patient.file("config.toml"), "quota = 1").unwrap()).await;
    broken("identity", |patient| std::fs::write(patient.file("identity.key"), "no key").unwrap()).await;
    broken("network", |patient| std::fs::write(patient.file("network.toml"), "id = 1").unwrap()).await;
    let open = broken("data folder", |patient| chmod(&patient.file("identity.key"), 0o644)).await;
    assert!(open.contains("identity.key") && open.contains("chmod go="), "{open}");
    broken("data folder", |patient| chmod(&patient.args.folder.data, 0o755)).await;
}

#[tokio::test]
async fn a_node_without_a_certificate_where_one_is_asked_for_is_told_so() {
    let authority = Authority::generate().unwrap();
    let patient = Patient::new(Some(&authority));
    let findings = patient.examined().await;
    let finding = find(&findings, "membership");
    assert_eq!(finding.state, State::Failure);
    assert!(finding.to_string().contains("network issue"), "{finding}");
    let data = DataDir::open(&patient.args.folder.data).unwrap();
    let own = data.keypair().unwrap().public().to_peer_id();
    let now = (crate::network::system_clock())();
    for (days, state) in [(10, State::Warning), (100, State::Well)] {
        let network = data.network_file().unwrap().id();
        data.keep_certificate(&authority.issue(network, own, 0, now + days * 86_400).unwrap()).unwrap();
        assert_eq!(find(&patient.examined().await, "membership").state, state);
    }
}

#[tokio::test]
async fn a_port_that_something_else_has_is_named() {
    let patient = Patient::new(None);
    let config = patient.config();
    let _udp = UdpSocket::bind(config.listen).unwrap();
    let findings = patient.examined().await;
    let finding = find(&findings, "ports");
    assert!(finding.state == State::Failure && finding.says.contains("UDP"), "{finding}");
    assert_eq!(find(&findings, "reachability").state, State::Unknown);
    // What listens there is no node.
    let listener = tokio::net::TcpListener::bind(config.control).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    });
    let findings = patient.examined().await;
    assert!(find(&findings, "ports").says.contains("no control listener"), "{findings:?}");
}

#[test]
fn a_quota_that_does_not_fit_the_disk_is_a_warning_and_one_that_is_used_up_a_failure() {
    let config = Config { quota_bytes: 100, repair_reserve_percent: 5, ..Config::default() };
    assert_eq!(machine::room(10, 90, &config).state, State::Well);
    let tight = machine::room(10, 89, &config);
    assert_eq!(tight.state, State::Warning);
    assert!(tight.remedy.unwrap().contains("to 99 or less"));
    assert_eq!(machine::room(94, 6, &config).state, State::Well);
    for (used, free) in [(95, 1_000), (200, 1_000), (10, 0)] {
        let full = machine::room(used, free, &config);
        assert_eq!(full.state, State::Failure, "{full}");
    }
    assert!(machine::room(200, 1_000, &config).to_string().contains("Raise quota_bytes"));
    assert_eq!(machine::room(10, 90, &Config { quota_bytes: 0, ..config }).state, State::Warning);
}

/// The URL of a listener that answers everything with `head`.
async fn answering(head: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            stream.write_all(format!("{head}content-length: 0\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        }
    });
    url
}

#[tokio::test]
async fn who_else_answers_where_viewers_are_sent_is_told() {
    let client = control_api::DeliveryClient::new().unwrap();
    let (own, other) = ("12D3own".parse().unwrap(), "12D3other".parse().unwrap());
    let node = answering("HTTP/1.1 200 OK\r\nimira-node: 12D3own\r\n").await;
    assert_eq!(reach::delivery(&client, &node, &own).await.state, State::Well);
    assert!(reach::delivery(&client, &node, &other).await.says.contains("another node"));
    let page = answering("HTTP/1.1 200 OK\r\n").await;
    let finding = reach::delivery(&client, &page, &own).await;
    assert!(finding.state == State::Warning && finding.says.contains("is no node"), "{finding}");
    let [nobody] = free_addresses();
    assert!(reach::delivery(&client, &format!("http://{nobody}"), &own).await.says.contains("nothing answers"));
}

#[tokio::test]
async fn ffmpeg_that_is_not_there_is_a_failure() {
    let root = tempfile::tempdir().unwrap();
    let absent = transcode::Tools { ffmpeg: root.path().join("ffmpeg"), ..transcode::Tools::default() };
    assert_eq!(machine::ffmpeg(&absent, true).await.state, State::Failure);
}

#[test]
fn each_way_of_not_being_reached_has_its_remedy() {
    let listen = "192.0.2.1:7101".parse().unwrap();
    for (tcp, udp, state, word) in [
        (true, true, State::Well, "reached"),
        (false, true, State::Failure, "Open TCP port 7101"),
        (true, false, State::Failure, "Open UDP port 7101"),
        (false, false, State::Failure, "Open both TCP and UDP port 7101"),
    ] {
        let finding = reach::judge(listen, "a node", tcp, udp);
        assert!(finding.state == state && finding.to_string().contains(word), "{finding}");
    }
}

#[test]
fn the_worst_finding_decides() {
    let of = |states: &[State]| {
        let findings: Vec<_> = states.iter().map(|state| Finding::of(*state, "it", "says", "remedy")).collect();
        verdict(&findings)
    };
    assert_eq!(of(&[State::Well, State::Warning]), 0);
    assert_eq!(of(&[State::Well, State::Unknown]), UNKNOWN);
    assert_eq!(of(&[State::Unknown, State::Failure]), TO_MEND);
}
