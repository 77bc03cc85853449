//! Why a store cannot start, or had to stop.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a store cannot start, or had to stop. Each says what to do about it, where that is known: what
/// the kernel refuses is told in the kernel's words.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No capacity was given, or none that a file can have.
    #[error("the capacity must be at least 1 byte and at most what a file can have")]
    CapacityZeroOrHuge,
    /// There is not as much memory as the store is to have.
    #[error(
        "the store is to hold {asked_bytes} bytes, but only {available_bytes} are available in \
         {place}: ask for less, or free some"
    )]
    NotEnoughMemory {
        /// The capacity asked for, in bytes.
        asked_bytes: u64,
        /// What is there, in bytes.
        available_bytes: u64,
        /// Where that is.
        place: String,
    },
    /// There are not as many huge pages as the store is to have.
    #[error(
        "the store is to hold {asked_bytes} bytes, but only {available_bytes} are available in \
         free huge pages of {} kB: ask for less, or reserve more pages (/proc/sys/vm/nr_hugepages; \
         those of another size in /sys/kernel/mm/hugepages)",
        page_bytes >> 10
    )]
    NotEnoughHugePages {
        /// The capacity asked for in whole pages, in bytes.
        asked_bytes: u64,
        /// What is there, in bytes.
        available_bytes: u64,
        /// The size of a page, in bytes.
        page_bytes: u64,
    },
    /// The directory for the store's memory cannot be used.
    #[error(
        "cannot use {} for the store's memory: {source}: give a directory that is there and that \
         this user can make files in (-d)",
        directory.display()
    )]
    Directory {
        /// The directory that was given.
        directory: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Huge pages were asked for, and no directory says which.
    #[error(
        "huge pages need a directory that is a hugetlbfs mount: give one (-d), for example after \
         `mount -t hugetlbfs none /mnt/hugepages`"
    )]
    HugePagesNeedDirectory,
    /// Huge pages were asked for in a directory that has none.
    #[error(
        "{} is not a hugetlbfs mount, so it has no huge pages: mount one \
         (`mount -t hugetlbfs none DIR`) and reserve pages (/proc/sys/vm/nr_hugepages)",
        directory.display()
    )]
    NotHugetlbfs {
        /// The directory that was given.
        directory: PathBuf,
    },
    /// The directory has huge pages only, and they were not asked for.
    #[error("{} is a hugetlbfs mount: ask for huge pages (-h) too", directory.display())]
    HugePagesNotAsked {
        /// The directory that was given.
        directory: PathBuf,
    },
    /// A socket path that the kernel cannot take.
    #[error(
        "the socket path {} is {len} bytes long, the kernel takes {max_len}: choose a shorter one",
        path.display()
    )]
    SocketPathTooLong {
        /// The path that was given.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
        /// The longest the kernel takes, in bytes.
        max_len: usize,
    },
    /// Another store listens there.
    #[error("a store listens at {} already: stop it, or choose another socket", path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has the socket's name.
    #[error("{} is there and is not a socket: remove it, or choose another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Another process keeps the socket's folder locked.
    #[error(
        "another process has locked {} for too long: end it, or choose a socket in another folder",
        folder.display()
    )]
    FolderLocked {
        /// The folder of the socket.
        folder: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot listen at {}: {source}{}", path.display(), socket_hint(source))]
    Socket {
        /// The path that was given.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The metrics cannot be served.
    #[error("cannot serve metrics at {address}: {source}: choose another address")]
    Metrics {
        /// The address that was given.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// No such kind of external store.
    #[error("no external store is called {endpoint:?}: there is hashtable://NAME")]
    UnknownExternalStore {
        /// What was given.
        endpoint: String,
    },
    /// The kernel refused something the store cannot do without.
    #[error("cannot {action}: {source}")]
    Kernel {
        /// What was being done.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The store's thread panicked.
    #[error(
        "the store's thread panicked, which is a mistake in the store: please report what it has \
         said on standard error"
    )]
    Panicked,
}

fn socket_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => ": make its folder first, or choose another path",
        io::ErrorKind::PermissionDenied => {
            ": choose a folder that this user can make files in, and a group that it is in"
        }
        _ => "",
    }
}
