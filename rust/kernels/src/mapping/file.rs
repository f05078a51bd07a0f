//! An open model file: it can be read at any position and checked for changes since it was opened.

use std::fs::{File, Metadata, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Error;

/// A file that is opened once: its header is read and its weights are mapped through the same descriptor, so that
/// another file renamed over its path meanwhile has no effect.
#[derive(Debug)]
pub struct SourceFile {
    file: File,
    path: PathBuf,
    opened: State,
}

/// Data that distinguish one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    len: u64,
    /// Device and file number on it, where the system has them.
    identity: (u64, u64),
    /// Seconds and nanoseconds of the last change.
    modified: (i64, i64),
}

impl State {
    #[cfg(unix)]
    fn of(about: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { len: about.len(), identity: (about.dev(), about.ino()), modified: (about.mtime(), about.mtime_nsec()) }
    }

    #[cfg(not(unix))]
    fn of(about: &Metadata) -> Self {
        let modified = about.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let modified = modified.map_or((0, 0), |time| (time.as_secs() as i64, i64::from(time.subsec_nanos())));
        Self { len: about.len(), identity: (0, 0), modified }
    }
}

impl SourceFile {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// As the system reports them; `InvalidInput` if `path` is not a regular file.
    pub fn open(path: &Path) -> std::io::Result<Arc<Self>> {
        let mut options = OpenOptions::new();
        options.read(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            // Opening a pipe would wait for its writer; the flag has no effect on regular files.
            options.custom_flags(libc::O_NONBLOCK);
        }
        let file = options.open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Arc::new(Self { file, path: path.to_owned(), opened: State::of(&about) }))
    }

    /// Length in bytes when the file was opened.
    pub fn len(&self) -> u64 {
        self.opened.len
    }

    /// Whether the file was empty when it was opened.
    pub fn is_empty(&self) -> bool {
        self.opened.len == 0
    }

    /// The path that the file was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself, for mapping.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// `Error::File` if they cannot be read, or the file has become too short.
    pub fn read(&self, mut offset: u64, mut out: &mut [u8]) -> Result<(), Error> {
        while !out.is_empty() {
            match self.read_some(offset, out) {
                Ok(0) => {
                    return Err(Error::File(format!(
                        "{} became shorter while it was used: it had {} bytes when it was opened, and ends before byte \
                         {offset} now; open it again when it is whole",
                        self.path.display(),
                        self.len()
                    )));
                }
                Ok(count) => {
                    offset += count as u64;
                    out = &mut out[count..];
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::File(format!("cannot read {}: {error}", self.path.display()))),
            }
        }
        Ok(())
    }

    #[cfg(unix)]
    fn read_some(&self, offset: u64, out: &mut [u8]) -> std::io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.file, out, offset)
    }

    #[cfg(windows)]
    fn read_some(&self, offset: u64, out: &mut [u8]) -> std::io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(&self.file, out, offset)
    }

    /// Checks that the file has not been written to since it was opened, as far as its length and modification time tell.
    ///
    /// # Errors
    /// `Error::Changed` if it has.
    pub fn check(&self) -> Result<(), Error> {
        let now = self.file.metadata().map(|about| State::of(&about));
        let path = self.path.display();
        let advice = "open the model again (replace model files by renaming a new file over them)";
        match now {
            Ok(now) if now == self.opened => Ok(()),
            Ok(now) if now.len < self.len() => Err(Error::Changed(format!(
                "{path} became shorter while it was used: {} bytes where {} were; {advice}",
                now.len,
                self.len()
            ))),
            Ok(_) => Err(Error::Changed(format!("{path} was written to while it was used; {advice}"))),
            Err(error) => Err(Error::Changed(format!("{path} cannot be reached any more: {error}; {advice}"))),
        }
    }
}
