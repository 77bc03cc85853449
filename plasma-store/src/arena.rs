//! The memory that objects lie in: one file that has no name, mapped by every client.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl, posix_fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statfs::{HUGETLBFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;
use nix::unistd::ftruncate;
use plasma_core::shm::memory::Source;

use crate::StoreError;
use crate::memory;
use crate::state::alloc::Range;

/// Memory is put behind the arena in steps of this many bytes (or of a huge page): small enough
/// that an almost empty store takes little, large enough that it is not asked for often.
pub(crate) const GRANULE: u64 = 64 << 10;

/// The arena is this many times as long as the capacity, so that gaps between objects never keep
/// one out that the capacity has room for. Address space costs nothing.
const STRETCH: u64 = 4;
const STRETCH_EXTRA: u64 = 1 << 30;

/// Huge pages are set aside whole, so there the arena is only this part longer.
const HUGE_STRETCH_DIVISOR: u64 = 8;

/// Memory that is left to everybody else.
const SYSTEM_RESERVE: u64 = 64 << 20;

/// Where the arena is to be.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) directory: Option<PathBuf>,
    pub(crate) huge_pages: bool,
}

#[derive(Debug)]
pub(crate) struct Arena {
    descriptor: Arc<OwnedFd>,
    len: u64,
    granule: u64,
    access: Access,
    /// Whether its pages come out of the memory that everything else needs too.
    ordinary_memory: bool,
}

/// How the store itself reads and writes the arena.
#[derive(Debug)]
enum Access {
    /// Sealed against shrinking: no client can take the memory from under the mapping. What one punches
    /// out reads as zeros; but huge pages that are punched out can be taken by others, and then there
    /// are none to be had.
    Mapped(MmapRaw),
    /// A file that a client could cut: read and written with calls that can fail.
    File(File),
}

impl Arena {
    /// Makes an arena for `capacity` bytes.
    pub(crate) fn create(capacity: u64, place: &Place) -> Result<Self, StoreError> {
        match (&place.directory, place.huge_pages) {
            (None, false) => Self::anonymous(capacity),
            (Some(directory), false) => Self::in_directory(capacity, directory),
            (Some(directory), true) => Self::huge(capacity, directory),
            (None, true) => Err(StoreError::HugePagesNeedDirectory),
        }
    }

    pub(crate) fn descriptor(&self) -> &Arc<OwnedFd> {
        &self.descriptor
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn granule(&self) -> u64 {
        self.granule
    }

    fn anonymous(capacity: u64) -> Result<Self, StoreError> {
        if let Some(available) = memory::available_bytes() {
            enough(capacity, available, "this system's memory")?;
        }
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let descriptor = memfd_create(c"plasma-arena", flags).map_err(cannot("make an arena"))?;
        let len = stretch(&descriptor, capacity)?;
        Self::mapped(descriptor, len, GRANULE, true)
    }

    fn in_directory(capacity: u64, directory: &Path) -> Result<Self, StoreError> {
        let unusable = |source| StoreError::Directory {
            directory: directory.to_owned(),
            source,
        };
        if is_hugetlbfs(directory).map_err(unusable)?.is_some() {
            return Err(StoreError::HugePagesNotAsked {
                directory: directory.to_owned(),
            });
        }
        let free = statvfs(directory).map_err(|error| unusable(error.into()))?;
        let available = free.blocks_available() * free.fragment_size();
        enough(capacity, available, &directory.display().to_string())?;
        let file = tempfile::tempfile_in(directory).map_err(unusable)?;
        let descriptor = OwnedFd::from(file);
        let len = stretch(&descriptor, capacity)?;
        let file = descriptor.try_clone().map_err(cannot("make an arena"))?;
        Ok(Self {
            descriptor: Arc::new(descriptor),
            len,
            granule: GRANULE,
            access: Access::File(file.into()),
            ordinary_memory: false,
        })
    }

    fn huge(capacity: u64, directory: &Path) -> Result<Self, StoreError> {
        let unusable = |source| StoreError::Directory {
            directory: directory.to_owned(),
            source,
        };
        let page =
            is_hugetlbfs(directory)
                .map_err(unusable)?
                .ok_or_else(|| StoreError::NotHugetlbfs {
                    directory: directory.to_owned(),
                })?;
        let needed = capacity.next_multiple_of(page);
        let available = free_huge_bytes(page).unwrap_or(0);
        if needed > available {
            return Err(StoreError::NotEnoughHugePages {
                asked_bytes: needed,
                available_bytes: available,
                page_bytes: page,
            });
        }
        let wanted = (capacity + capacity / HUGE_STRETCH_DIVISOR).next_multiple_of(page);
        let len = wanted.min(available / page * page);
        // The directory tells the page size. The file itself is in none: that way the kernel can
        // seal it, and no client can cut it under the store.
        let page_size = MFdFlags::from_bits_retain(page.trailing_zeros() << 26);
        let flags =
            MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_HUGETLB | page_size;
        let descriptor = memfd_create(c"plasma-arena", flags).map_err(cannot("make an arena"))?;
        ftruncate(&descriptor, len as i64).map_err(cannot("size the arena"))?;
        Self::mapped(descriptor, len, page, false)
    }

    fn mapped(
        descriptor: OwnedFd,
        len: u64,
        granule: u64,
        ordinary_memory: bool,
    ) -> Result<Self, StoreError> {
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&descriptor, FcntlArg::F_ADD_SEALS(seals)).map_err(cannot("seal the arena"))?;
        let file = File::from(descriptor);
        let map_len = usize::try_from(len).map_err(|_| StoreError::CapacityZeroOrHuge)?;
        // For huge pages this also sets them aside: from here on they are there.
        let mapping = MmapOptions::new().len(map_len).map_raw(&file);
        let mapping = mapping.map_err(|source| StoreError::Kernel {
            action: "map the arena",
            source,
        })?;
        Ok(Self {
            descriptor: Arc::new(file.into()),
            len,
            granule,
            access: Access::Mapped(mapping),
            ordinary_memory,
        })
    }

    /// Puts memory behind a range, or says why there is none.
    pub(crate) fn populate(&self, range: Range) -> io::Result<()> {
        if self.ordinary_memory
            && range.len > GRANULE
            && let Some(available) = memory::available_bytes()
            && available < range.len.saturating_add(SYSTEM_RESERVE)
        {
            // The kernel would say yes and then kill somebody.
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let (offset, len) = (range.offset as i64, range.len as i64);
        loop {
            match fallocate(
                self.descriptor.as_fd(),
                FallocateFlags::empty(),
                offset,
                len,
            ) {
                Err(Errno::EINTR) => {}
                Err(Errno::EOPNOTSUPP) => {
                    return Ok(posix_fallocate(self.descriptor.as_fd(), offset, len)?);
                }
                result => return Ok(result?),
            }
        }
    }

    /// Puts memory behind a range and has the kernel make it ready (it clears pages only when
    /// they are first touched), without changing what is there.
    pub(crate) fn warm(&self, range: Range) -> io::Result<()> {
        self.populate(range)?;
        if let Access::Mapped(mapping) = &self.access {
            let (offset, len) = (range.offset as usize, range.len as usize);
            // Kernels before 5.14 do not know this: there the first writer waits, as without it.
            let _ = mapping.advise_range(Advice::PopulateWrite, offset, len);
        }
        Ok(())
    }

    /// Gives the memory behind a range back to the system. Where the file cannot do that it
    /// stays, as zeros or as it was.
    pub(crate) fn discard(&self, range: Range) -> io::Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (offset, len) = (range.offset as i64, range.len as i64);
        loop {
            match fallocate(self.descriptor.as_fd(), flags, offset, len) {
                Err(Errno::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Writes bytes that an object in the making is to have.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match &self.access {
            Access::File(file) => file.write_all_at(bytes, offset),
            Access::Mapped(mapping) => {
                let start = place(mapping, offset, bytes.len())?;
                // SAFETY: `place` has found `bytes.len()` bytes from `start` inside the mapping,
                // which is writable and, being sealed, as long as the file. `bytes` is the heap's,
                // so the two do not overlap. No Rust reference to the mapping exists.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
                Ok(())
            }
        }
    }

    /// Writes bytes that a client has in memory of its own that is shared with the store, and may be
    /// changing: the object gets whatever is there.
    pub(crate) fn write_from(&self, offset: u64, source: &Source<'_>) -> io::Result<()> {
        match &self.access {
            Access::File(file) => file.write_all_at(&source.to_vec(), offset),
            Access::Mapped(mapping) => {
                let start = place(mapping, offset, source.len())?;
                // SAFETY: `place` has found `source.len()` bytes from `start` inside the mapping,
                // which is writable and, being sealed, as long as the file. The source is readable
                // for as long as it lives, and in another mapping, of another file. No Rust reference
                // to either exists.
                unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), start, source.len()) };
                Ok(())
            }
        }
    }

    /// Reads what an object has.
    pub(crate) fn read(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut bytes = vec![0; len];
        match &self.access {
            Access::File(file) => file.read_exact_at(&mut bytes, offset)?,
            Access::Mapped(mapping) => {
                let start = place(mapping, offset, len)?;
                // SAFETY: `place` has found `len` bytes from `start` inside the mapping, which is
                // readable and, being sealed, as long as the file. `bytes` is the heap's and has
                // `len` bytes, so the two do not overlap.
                unsafe { std::ptr::copy_nonoverlapping(start, bytes.as_mut_ptr(), len) };
            }
        }
        Ok(bytes)
    }
}

/// The address of `len` bytes at `offset`, all of them inside the mapping.
fn place(mapping: &MmapRaw, offset: u64, len: usize) -> io::Result<*mut u8> {
    let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let inside = offset
        .checked_add(len)
        .is_some_and(|end| end <= mapping.len());
    if inside {
        Ok(mapping.as_mut_ptr().wrapping_add(offset))
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

/// How long an arena for `capacity` should be.
pub(crate) fn best_len(capacity: u64) -> u64 {
    capacity
        .saturating_mul(STRETCH)
        .saturating_add(STRETCH_EXTRA)
}

/// Makes a file as long as an arena for `capacity` should be, or as the file system allows.
fn stretch(descriptor: &OwnedFd, capacity: u64) -> Result<u64, StoreError> {
    let least = capacity
        .checked_next_multiple_of(GRANULE)
        .filter(|len| *len > 0 && i64::try_from(*len).is_ok())
        .ok_or(StoreError::CapacityZeroOrHuge)?;
    let mut result = Ok(());
    for len in [best_len(least), least.saturating_mul(2), least] {
        if let Ok(signed) = i64::try_from(len) {
            result = ftruncate(descriptor, signed);
            if result.is_ok() {
                return Ok(len);
            }
        }
    }
    result.map_err(cannot("size the arena"))?;
    Err(StoreError::CapacityZeroOrHuge)
}

fn cannot<E: Into<io::Error>>(action: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Kernel {
        action,
        source: error.into(),
    }
}

fn enough(asked: u64, available: u64, place: &str) -> Result<(), StoreError> {
    if asked <= available {
        return Ok(());
    }
    Err(StoreError::NotEnoughMemory {
        asked_bytes: asked,
        available_bytes: available,
        place: place.to_owned(),
    })
}

/// The page size of a huge page file system; `None` if it is another kind.
fn is_hugetlbfs(directory: &Path) -> io::Result<Option<u64>> {
    let found = statfs(directory)?;
    let huge = found.filesystem_type() == HUGETLBFS_MAGIC;
    Ok(huge.then(|| found.block_size() as u64))
}

/// Huge pages of one size that nobody has or has set aside.
fn free_huge_bytes(page: u64) -> Option<u64> {
    let pool = PathBuf::from(format!(
        "/sys/kernel/mm/hugepages/hugepages-{}kB",
        page >> 10
    ));
    let read = |name| -> Option<u64> {
        std::fs::read_to_string(pool.join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let free = read("free_hugepages")?.saturating_sub(read("resv_hugepages")?);
    let surplus = read("nr_overcommit_hugepages")?.saturating_sub(read("surplus_hugepages")?);
    free.checked_add(surplus)?.checked_mul(page)
}
