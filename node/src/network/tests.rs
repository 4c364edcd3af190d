use super::*;
use crate::config::Config;
use crate::files::DataDir;
use clap::Parser;
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: NetworkCommand,
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a command line in which words with a `/` before them are files of this folder.
    fn run(&self, line: &str) -> Result<()> {
        let words = line.split_whitespace().map(|word| match word.strip_prefix('/') {
            Some(name) => self.path(name).display().to_string(),
            None => word.to_owned(),
        });
        run(Line::try_parse_from(["network".to_owned()].into_iter().chain(words))?.command)
    }

    fn refused(&self, line: &str) -> String {
        format!("{:#}", self.run(line).unwrap_err())
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o777
    }

    fn keys(&self, name: &str) -> Vec<String> {
        read_network(&self.path(name)).unwrap().keys().iter().map(|key| key.to_secret_hex().to_string()).collect()
    }
}

#[test]
fn a_network_with_an_authority_is_made_and_its_secrets_are_private() {
    let folder = Folder::new();
    folder.run("new --out /net --authority /authority").unwrap();
    assert_eq!((folder.mode("net"), folder.mode("authority")), (0o600, 0o600));
    let network = read_network(&folder.path("net")).unwrap();
    let authority = read_authority(&folder.path("authority")).unwrap();
    assert_eq!(network.membership().authorities(), [authority.public()]);
    let text = fs::read_to_string(folder.path("net")).unwrap();
    assert!(!text.contains(authority.to_secret_hex().as_str()), "the authority's secret is in the network file");
    // Nothing is overwritten, and an authority may serve a second network.
    assert!(folder.refused("new --out /net").contains("already"));
    assert!(folder.refused("authority new --out /authority").contains("must not exist"));
    folder.run("new --out /second --authority /authority").unwrap();
    assert_eq!(read_network(&folder.path("second")).unwrap().membership().authorities(), [authority.public()]);
    assert_eq!(read_authority(&folder.path("authority")).unwrap().public(), authority.public());
}

#[test]
fn a_broken_file_is_refused_without_its_text() {
    let folder = Folder::new();
    let secret = "00".repeat(31);
    for text in [
        format!("id = \"{}\"\nkeys = [\"{secret}\"]\n", "ab".repeat(16)),
        format!("id = \"{}\"\nkeys = [\"{}\"]\nauthorities = [\"{secret}\"]\n", "ab".repeat(16), "ab".repeat(32)),
        format!("secret = \"{secret}\"\n"),
        format!("secret = {secret}\n"),
    ] {
        fs::write(folder.path("broken"), &text).unwrap();
        for line in ["show /broken", "authority show /broken", "rotate /broken"] {
            let error = folder.refused(line);
            assert!(error.contains("broken") && !error.contains(&secret), "{line}: {error}");
        }
    }
}

#[test]
fn a_node_becomes_a_member_and_is_revoked() {
    let folder = Folder::new();
    folder.run("new --out /net --authority /authority").unwrap();
    let data = DataDir::create(&folder.path("node"), &Config::default(), &folder.path("net"), &[]).unwrap();
    let own = data.keypair().unwrap().public().to_peer_id();
    let now = SystemClock.unix_seconds();

    folder.run("issue --authority /authority --network /net --data /node --days 10").unwrap();
    let first = data.certificate().unwrap().unwrap();
    let membership = data.network().unwrap();
    let membership = membership.membership();
    let end = membership.own_end(own, now).unwrap().unwrap();
    assert!((now + 10 * DAY_S..=now + 10 * DAY_S + 60).contains(&end), "{end}");

    // By its PeerId, into a file of its own that is not overwritten.
    let line = format!("issue --authority /authority --network /net --peer {own} --out /second");
    folder.run(&line).unwrap();
    assert!(folder.refused(&line).contains("must not exist"));
    let second = read_certificate(&folder.path("second")).unwrap();
    assert_eq!((second.peer(), second.validity().1 - second.validity().0), (own, 365 * DAY_S));
    for bad in [
        "issue --authority /authority --network /net --out /third",
        "issue --authority /authority --network /net --peer nobody --out /third",
        "issue --authority /authority --network /net --data /node --days 0",
        &format!("issue --authority /authority --network /net --peer {own}"),
    ] {
        assert!(folder.run(bad).is_err(), "{bad}");
    }

    // Both are revoked, one by its number and one by its file.
    folder.run(&format!("revoke --authority /authority --network /net --list /list {}", first.serial())).unwrap();
    assert_eq!(read_list(&folder.path("list")).unwrap().number(), 1);
    assert!(membership.offer_revocations(&fs::read(folder.path("list")).unwrap()).unwrap());
    assert!(membership.own_end(own, now).is_err());
    membership.set_certificate(second);
    assert!(membership.own_end(own, now).is_ok());
    folder.run("revoke --authority /authority --network /net --list /list /second").unwrap();
    let list = read_list(&folder.path("list")).unwrap();
    assert_eq!((list.number(), list.serials().len()), (2, 2));
    assert!(membership.offer_revocations(list.as_bytes()).unwrap());
    assert!(membership.own_end(own, now).is_err());

    // What changes nothing makes no new list, and what is no certificate is refused.
    assert!(folder.refused("revoke --authority /authority --network /net --list /list /second").contains("already"));
    let error = folder.refused("revoke --authority /authority --network /net --list /list /net");
    assert!(error.contains("neither a serial number"), "{error}");
    assert_eq!(read_list(&folder.path("list")).unwrap().number(), 2);
}

#[test]
fn an_authority_that_the_network_does_not_name_signs_nothing() {
    let folder = Folder::new();
    folder.run("new --out /net --authority /authority").unwrap();
    folder.run("authority new --out /stranger").unwrap();
    let peer = dht::Keypair::generate_ed25519().public().to_peer_id();
    let error = folder.refused(&format!("issue --authority /stranger --network /net --peer {peer} --out /c"));
    assert!(error.contains("does not name the authority"), "{error}");
    let serial = "ab".repeat(16);
    folder.run(&format!("revoke --authority /authority --network /net --list /list {serial}")).unwrap();
    // Nor does the right one go on with a list of another network.
    folder.run("new --out /other --authority /authority").unwrap();
    let error = folder.refused(&format!("revoke --authority /authority --network /other --list /list {serial}"));
    assert!(error.contains("not a list of this authority"), "{error}");
}

#[test]
fn a_rotation_is_begun_and_finished_in_the_file() {
    let folder = Folder::new();
    folder.run("new --out /net --authority /authority").unwrap();
    let (id, old) = (read_network(&folder.path("net")).unwrap().id(), folder.keys("net"));
    assert!(folder.refused("retire /net").contains("one key only"));
    folder.run("rotate /net").unwrap();
    let during = folder.keys("net");
    assert_eq!((during.len(), &during[1]), (2, &old[0]));
    assert!(folder.refused("rotate /net").contains("retire"));
    assert_eq!(folder.keys("net"), during, "a refusal changed the file");
    folder.run("retire /net").unwrap();
    assert_eq!(folder.keys("net"), during[..1]);
    let after = read_network(&folder.path("net")).unwrap();
    assert_eq!((after.id(), after.membership().authorities().len()), (id, 1));
    assert_eq!(folder.mode("net"), 0o600);
    assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 2, "something is left over");
}
