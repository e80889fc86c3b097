//! What the file system below the log does with a sync: a log outlives the loss of power only where that reaches a disk
//! of this machine.

use std::path::Path;

/// A file system as the operating system names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileSystem {
    pub(super) name: &'static str,
    pub(super) keeps: Keeps,
}

/// Where it keeps what was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeps {
    /// On a disk of this machine.
    Disk,
    /// In the memory of this machine.
    Memory,
    /// On another machine, which says itself what a sync is worth; and SQLite needs memory that all who have the file
    /// open share.
    Network,
    /// Nobody can tell from here: the work is done by a program, or it is not in the table.
    Unknown,
}

/// By the number in `statfs`, from Linux's `magic.h` and the sources of those that are not in it.
const KNOWN: [(u32, &str, Keeps); 24] = [
    (0x0000_ef53, "ext4", Keeps::Disk),
    (0x5846_5342, "xfs", Keeps::Disk),
    (0x9123_683e, "btrfs", Keeps::Disk),
    (0xf2f5_2010, "f2fs", Keeps::Disk),
    (0x2fc1_2fc1, "zfs", Keeps::Disk),
    (0xca45_1a4e, "bcachefs", Keeps::Disk),
    (0x5265_4973, "reiserfs", Keeps::Disk),
    (0x3153_464a, "jfs", Keeps::Disk),
    (0x0102_1994, "tmpfs", Keeps::Memory),
    (0x8584_58f6, "ramfs", Keeps::Memory),
    (0x9584_58f6, "hugetlbfs", Keeps::Memory),
    (0x0000_6969, "nfs", Keeps::Network),
    (0x0000_517b, "smb", Keeps::Network),
    (0xff53_4d42, "cifs", Keeps::Network),
    (0xfe53_4d42, "smb2", Keeps::Network),
    (0x00c3_6400, "ceph", Keeps::Network),
    (0x5346_414f, "afs", Keeps::Network),
    (0x6b41_4653, "afs", Keeps::Network),
    (0x7375_7245, "coda", Keeps::Network),
    (0x0102_1997, "9p", Keeps::Network),
    (0x0bd0_0bd0, "lustre", Keeps::Network),
    (0x0116_1970, "gfs2", Keeps::Network),
    (0x6573_5546, "fuse", Keeps::Unknown),
    (0x794c_7630, "overlayfs", Keeps::Unknown),
];

impl FileSystem {
    /// That of this directory.
    pub(super) fn of(directory: &Path) -> Self {
        let magic = rustix::fs::statfs(directory).ok().and_then(|found| u32::try_from(found.f_type).ok());
        magic.map_or(Self::UNKNOWN, Self::with)
    }

    const UNKNOWN: Self = Self { name: "an unknown file system", keeps: Keeps::Unknown };

    fn with(magic: u32) -> Self {
        let found = KNOWN.iter().find(|(known, ..)| *known == magic);
        found.map_or(Self::UNKNOWN, |(_, name, keeps)| Self { name, keeps: *keeps })
    }

    /// What an acknowledged write outlives, and why not more.
    pub(super) fn describe(self) -> String {
        let name = self.name;
        match self.keeps {
            Keeps::Disk => format!(
                "every acknowledged write was synced to the disk ({name}) and outlives kill -9 and the loss of power, if \
                 the disk keeps what it acknowledged"
            ),
            Keeps::Memory => format!(
                "every acknowledged write outlives kill -9; all is lost when the machine stops, because {name} keeps it \
                 in memory: use a local directory on a disk"
            ),
            Keeps::Network => format!(
                "every acknowledged write outlives kill -9; for a loss of power nothing is promised, because {name} is a \
                 network file system: use a local directory on a disk"
            ),
            Keeps::Unknown => format!(
                "every acknowledged write was synced and outlives kill -9; for a loss of power nothing is promised, \
                 because what a sync of {name} is worth cannot be told: use a local directory on a disk"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_disk_of_this_machine_outlives_the_loss_of_power() {
        for (magic, name, keeps) in [
            (0xef53, "ext4", Keeps::Disk),
            (0x0102_1994, "tmpfs", Keeps::Memory),
            (0x6969, "nfs", Keeps::Network),
            (0x6573_5546, "fuse", Keeps::Unknown),
            (0x1234_5678, "an unknown file system", Keeps::Unknown),
        ] {
            let found = FileSystem::with(magic);
            assert_eq!(found, FileSystem { name, keeps });
            assert_eq!(found.describe().contains("and the loss of power"), keeps == Keeps::Disk);
            assert!(found.describe().contains(name), "{}", found.describe());
        }
    }

    #[test]
    fn every_number_is_there_once() {
        let mut numbers = KNOWN.map(|(magic, ..)| magic);
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:x?}");
    }
}
