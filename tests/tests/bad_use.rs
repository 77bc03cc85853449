//! Mistakes and shortages, and whether what is said of them helps.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use plasma_core::{ObjectId, PlasmaClient, PlasmaError};
use plasma_store::{Store, StoreError};
use tests::{StoreProcess, in_another_process, role, server_program, wait_for_line, within};

const LIMIT: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

/// What the store's program says when it does not start.
fn refusal(args: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(server_program());
    command.arg("-s").arg(folder.path().join("plasma.sock"));
    let output = command.args(args).stdin(Stdio::null()).output();
    let output = output.expect("the program starts");
    assert!(!output.status.success(), "{args:?} is accepted");
    assert!(
        output.status.code().is_some(),
        "{args:?}: {}",
        output.status
    );
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).expect("it says it in text")
}

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
}

fn error_of<T>(result: Result<T, PlasmaError>) -> String {
    match result {
        Ok(_) => panic!("it worked"),
        Err(error) => error.to_string(),
    }
}

fn connect(path: &Path) -> Result<PlasmaClient, PlasmaError> {
    PlasmaClient::builder().retries(0).connect(path)
}

#[test]
fn a_client_says_why_it_cannot_connect() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let nothing = folder.path().join("nothing.sock");
        let error = error_of(connect(&nothing));
        says(
            &error,
            &["nothing.sock", "plasma-store-server -m BYTES -s SOCKET"],
        );
        let stale = folder.path().join("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        says(
            &error_of(connect(&stale)),
            &["stale.sock", "nobody listens"],
        );
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        says(&error_of(connect(&file)), &["/file", "no Plasma store at"]);
        let long = folder.path().join("x".repeat(120));
        let len = long.as_os_str().len().to_string();
        says(&error_of(connect(&long)), &[&len, "107", "shorter"]);
    });
}

#[test]
fn a_store_says_why_it_cannot_listen() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(120));
        let len = long.as_os_str().len().to_string();
        let long = long.to_str().unwrap();
        says(
            &refusal(&["-m", "1000", "-s", long]),
            &[&len, "107", "shorter"],
        );
        let nowhere = refusal(&["-m", "1000", "-s", "/nowhere/plasma.sock"]);
        says(
            &nowhere,
            &["/nowhere/plasma.sock", "No such file", "make its folder"],
        );
        let group = refusal(&["-m", "1000", "--group", "no-such-group"]);
        says(&group, &["no-such-group"]);
        // The longest path that can be is not too long.
        let room = 107 - folder.path().as_os_str().len() - 1;
        let longest = folder.path().join("x".repeat(room));
        let store = Store::builder()
            .capacity(1000)
            .socket(&longest)
            .spawn()
            .unwrap();
        connect(&longest).unwrap().list().unwrap();
        let inside = Store::builder().capacity(1000).socket(long).spawn();
        assert!(matches!(inside, Err(StoreError::SocketPathTooLong { .. })));
        drop(store);
    });
}

#[test]
fn a_store_says_how_much_memory_there_is() {
    within(LIMIT, || {
        let much = (1_u64 << 50).to_string();
        says(&refusal(&["-m", &much]), &[&much, "available", "memory"]);
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        says(
            &refusal(&["-m", &much, "-d", place]),
            &[&much, "available", place],
        );
        says(
            &refusal(&["-m", "1000", "-d", "/nowhere"]),
            &["/nowhere", "No such file", "directory that is there"],
        );
        says(&refusal(&["-m", "0"]), &["capacity", "at least 1 byte"]);
        says(
            &refusal(&["-m", &u64::MAX.to_string()]),
            &[&u64::MAX.to_string()],
        );
        says(
            &refusal(&["-m", "99999999999999999999999"]),
            &["9999999999", "-m takes a number of bytes"],
        );
        let inside = Store::builder().spawn();
        assert!(matches!(inside, Err(StoreError::CapacityZeroOrHuge)));
    });
}

#[test]
fn options_that_cannot_be_are_explained() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        let not_huge = refusal(&["-m", "1000", "-d", place, "-h"]);
        says(&not_huge, &[place, "not a hugetlbfs mount", "nr_hugepages"]);
        says(&refusal(&["-m", "1000", "-h"]), &["-d", "hugetlbfs"]);
        for endpoint in ["redis://localhost", "hashtable", ""] {
            let refused = refusal(&["-m", "1000", "-e", endpoint]);
            says(&refused, &[&format!("{endpoint:?}"), "hashtable://NAME"]);
        }
        for (option, value) in [
            ("--mode", "9"),
            ("--max-clients", "many"),
            ("--max-objects", "-1"),
            ("--stall-timeout", "soon"),
            ("-h=perhaps", "perhaps"),
        ] {
            says(&refusal(&["-m", "1000", option, value]), &[value, "--help"]);
        }
    });
}

#[test]
fn an_object_larger_than_the_store_is_told_with_both_sizes() {
    within(LIMIT, || {
        let store = StoreProcess::start(1_000_000, &[]);
        let client = store.client();
        let id = ObjectId::rand();
        let error = error_of(client.create(id, 2_000_000, b""));
        says(
            &error,
            &["2000000", "1000000", "larger than the whole store", "-m"],
        );
        let held = client.create(id, 600_000, b"").unwrap();
        let error = error_of(client.create(ObjectId::rand(), 500_000, b""));
        says(&error, &["500000", "1000000", "in use"]);
        says(&error_of(client.create(id, 1, b"")), &["exists already"]);
        drop(held);
        says(
            &error_of(client.set_options("me", 900_000)),
            &["900000", "1000000", "30 %"],
        );
        let batch = [(id, &[0; 600_000][..], &[0; 600_000][..])];
        says(
            &error_of(client.create_and_seal_batch(&batch)),
            &["1200000", "1000000"],
        );
    });
}

// -------------------------------------------------------------------------------------------------
// Too little memory, later

/// The store is gone, and this process may not have as much memory as it takes to keep writing.
#[test]
fn what_was_not_sealed_can_be_read_where_there_is_no_memory_to_copy_it() {
    const THIS: &str = "what_was_not_sealed_can_be_read_where_there_is_no_memory_to_copy_it";
    if let Some((_, socket)) = role() {
        let client = connect(&socket).unwrap();
        let mut object = client.create(ObjectId::rand(), 64 * MIB, b"").unwrap();
        object.data_mut().fill(7);
        println!("\nwritten");
        std::io::stdin().read_line(&mut String::new()).unwrap();
        let pages = fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
        let most = pages * 4096 + (32 * MIB) as u64;
        setrlimit(Resource::RLIMIT_AS, most, most).unwrap();
        assert!(matches!(object.seal(), Err(PlasmaError::Disconnected)));
        assert!(!object.is_mutable());
        assert!(object.data().iter().all(|byte| *byte == 7));
        assert!(matches!(object.seal(), Err(PlasmaError::Disconnected)));
        return;
    }
    within(LIMIT, || {
        let store = StoreProcess::start(100_000_000, &[]);
        let mut other = in_another_process(THIS, "writer", store.socket());
        wait_for_line(&mut other, "written");
        drop(store);
        writeln!(other.stdin.take().unwrap()).unwrap();
        assert!(other.wait().unwrap().success());
    });
}

/// Runs the test once more where what it mounts is gone with it, whatever happens; whether this is
/// there.
fn in_private_mounts(test: &str) -> bool {
    if role().is_some() {
        return true;
    }
    let possible = Command::new("unshare").args(["-m", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED {test}: this user may not mount (run it as root)");
        return false;
    }
    let status = Command::new("unshare")
        .arg("-m")
        .arg(std::env::current_exe().expect("this program has a path"))
        .args([test, "--exact", "--nocapture"])
        .env("PLASMA_TEST_ROLE", "mounting")
        .env("PLASMA_TEST_ARG", "")
        .status();
    assert!(
        status.expect("it runs").success(),
        "{test} fails in private mounts"
    );
    false
}

fn mount(kind: &str, options: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("mount");
    command
        .args(["-t", kind, "-o", options, "none"])
        .arg(folder.path());
    let status = command.status().expect("mount is there");
    assert!(status.success(), "cannot mount {kind}");
    folder
}

fn unmount(folder: tempfile::TempDir) {
    let status = Command::new("umount").arg(folder.path()).status();
    assert!(status.expect("umount is there").success());
}

/// A file that takes what a file system has, but for `left` bytes.
struct Eater(PathBuf);

impl Eater {
    fn eat(folder: &Path, left: usize) -> Self {
        let path = folder.join("eater");
        let file = fs::File::create(&path).expect("a file");
        let free = nix::sys::statvfs::statvfs(folder).expect("a file system");
        let free = free.blocks_available() * free.fragment_size();
        let block = [1; 64 << 10];
        let mut at = 0;
        while at + (left as u64) < free {
            file.write_all_at(&block, at).expect("there is room");
            at += block.len() as u64;
        }
        Self(path)
    }
}

fn write_object(client: &PlasmaClient, size: usize) -> Result<ObjectId, PlasmaError> {
    let id = ObjectId::rand();
    let mut object = client.create(id, size, b"meta")?;
    object.data_mut().fill(0x5a);
    object.seal()?;
    Ok(id)
}

fn is_whole(client: &PlasmaClient, id: ObjectId, size: usize) -> bool {
    let object = client
        .get(id, 0)
        .expect("the store answers")
        .expect("it is there");
    object.data().len() == size && object.data().iter().all(|byte| *byte == 0x5a)
}

fn is_out_of_memory<T>(result: &Result<T, PlasmaError>) -> bool {
    matches!(result, Err(PlasmaError::OutOfMemory { .. }))
}

/// The file system had room for the whole store when it started, and somebody else took it.
#[test]
fn where_memory_runs_out_later_creates_are_refused_and_nobody_dies() {
    if !in_private_mounts("where_memory_runs_out_later_creates_are_refused_and_nobody_dies") {
        return;
    }
    within(LIMIT, || {
        let folder = mount("tmpfs", "size=32m");
        let place = folder.path().to_str().unwrap();
        let mut store = StoreProcess::start(24 * MIB as u64, &["-d", place]);
        let client = store.client();
        let first = write_object(&client, MIB).unwrap();
        for (size, left) in [(100_000, MIB), (3 * MIB, 4 * MIB), (12 * MIB, 2 * MIB)] {
            let eater = Eater::eat(folder.path(), left);
            let mut kept = Vec::new();
            let refused = loop {
                match write_object(&client, size) {
                    Ok(id) => kept.push(id),
                    refused => break refused,
                }
            };
            assert!(is_out_of_memory(&refused), "{refused:?}");
            let inline = client.create_and_seal(ObjectId::rand(), &vec![1; 120_000], b"");
            let batch = vec![2; 5 * MIB];
            let batch = client.create_and_seal_batch(&[(ObjectId::rand(), &batch, b"")]);
            for small in [inline, batch] {
                assert!(small.is_ok() || is_out_of_memory(&small), "{small:?}");
            }
            for id in &kept {
                assert!(is_whole(&client, *id, size));
            }
            assert!(is_whole(&client, first, MIB));
            assert!(
                client
                    .list()
                    .unwrap()
                    .iter()
                    .all(|info| info.digest.is_some())
            );
            fs::remove_file(eater.0).unwrap();
            let again = write_object(&client, size).unwrap();
            assert!(is_whole(&client, again, size));
            kept.push(again);
            client.delete_many(&kept).unwrap();
        }
        assert!(store.is_alive());
        drop((client, store));
        unmount(folder);
    });
}

/// Freed memory that is too scattered to be used where it is: it is given back and had elsewhere,
/// for small objects and for large ones.
#[test]
fn a_file_system_hardly_larger_than_the_store_can_be_filled_again_and_again() {
    if !in_private_mounts(
        "a_file_system_hardly_larger_than_the_store_can_be_filled_again_and_again",
    ) {
        return;
    }
    within(LIMIT, || {
        let folder = mount("tmpfs", "size=36m");
        let place = folder.path().to_str().unwrap();
        let store = StoreProcess::start(32 * MIB as u64, &["-d", place]);
        let client = store.client();
        for (size, larger) in [(900_000, 1_000_000), (2_000_000, 3_000_000)] {
            let ids: Vec<_> = (0..32 * MIB / (size + 4))
                .map(|_| write_object(&client, size).unwrap())
                .collect();
            let (gone, kept): (Vec<_>, Vec<_>) =
                ids.iter().enumerate().partition(|(n, _)| n % 2 == 0);
            let gone: Vec<_> = gone.into_iter().map(|(_, id)| *id).collect();
            let held: Vec<_> = kept
                .iter()
                .map(|(_, id)| client.get(**id, 0).unwrap())
                .collect();
            client.delete_many(&gone).unwrap();
            let room = 32 * MIB - held.len() * (size + 4);
            for _ in 0..room / (larger + 4) {
                write_object(&client, larger).unwrap();
            }
            for (_, id) in kept {
                assert!(is_whole(&client, *id, size));
            }
            drop(held);
            client.evict(u64::MAX).unwrap();
        }
        drop((client, store));
        unmount(folder);
    });
}

// -------------------------------------------------------------------------------------------------
// Huge pages

const NR_HUGEPAGES: &str = "/proc/sys/vm/nr_hugepages";

/// Huge pages that are reserved as long as this lives.
struct HugePages {
    before: String,
}

impl HugePages {
    fn reserve(pages: u64) -> Option<Self> {
        let before = fs::read_to_string(NR_HUGEPAGES).ok()?;
        let wanted = before.trim().parse::<u64>().ok()? + pages;
        let reserved = Self { before };
        fs::write(NR_HUGEPAGES, wanted.to_string()).ok()?;
        let now: u64 = fs::read_to_string(NR_HUGEPAGES).ok()?.trim().parse().ok()?;
        (now >= wanted).then_some(reserved)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // Nothing more can be done about it here.
        let _ = fs::write(NR_HUGEPAGES, self.before.trim());
    }
}

#[test]
fn a_store_of_huge_pages_can_be_filled() {
    if !in_private_mounts("a_store_of_huge_pages_can_be_filled") {
        return;
    }
    within(LIMIT, || {
        let folder = mount("hugetlbfs", "pagesize=2M");
        let place = folder.path().to_str().unwrap();
        says(&refusal(&["-m", "1000", "-d", place]), &[place, "-h"]);
        let capacity = 16 * MIB;
        let Some(pages) = HugePages::reserve(12) else {
            eprintln!("SKIPPED a_store_of_huge_pages_can_be_filled: no huge pages can be reserved");
            return unmount(folder);
        };
        let much = refusal(&["-m", "1099511627776", "-d", place, "-h"]);
        says(
            &much,
            &[
                "1099511627776",
                "available",
                "free huge pages of 2048 kB",
                "/proc/sys/vm/nr_hugepages",
            ],
        );
        {
            let args = ["-d", place, "-h"];
            let mut store = StoreProcess::start(capacity as u64, &args);
            let client = store.client();
            for size in [capacity - 4, 3 * MIB, 999_996, 100_000] {
                let count = capacity / (size + 4);
                let ids: Vec<_> = (0..count)
                    .map(|_| write_object(&client, size).unwrap())
                    .collect();
                for id in &ids {
                    assert!(is_whole(&client, *id, size));
                }
                client.delete_many(&ids).unwrap();
            }
            let batch = vec![0x5a; 5 * MIB];
            let id = ObjectId::rand();
            client.create_and_seal_batch(&[(id, &batch, b"")]).unwrap();
            assert!(is_whole(&client, id, 5 * MIB));
            assert!(store.is_alive());
        }
        drop(pages);
        unmount(folder);
    });
}
