//! What a disk holds, twice: as programs see it and as the platter has it.
//!
//! `State::apply` is the only function that changes it. Live operations and the rebuilding of the past both use it,
//! so that an image cannot differ from what really happened.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A file apart from its name: a name can be removed and given to another file while the first is still open.
pub(crate) type FileId = u64;

/// One change, as it is recorded.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Create {
        path: Arc<str>,
        file: FileId,
    },
    Write {
        file: FileId,
        offset: usize,
        bytes: Arc<[u8]>,
    },
    Truncate {
        file: FileId,
        length: usize,
    },
    Sync {
        file: FileId,
        directory: DirectorySync,
    },
    /// A sync that reported an error. What it should have written is never written by a later sync either.
    FailedSync {
        file: FileId,
    },
    Delete {
        path: Arc<str>,
        file: FileId,
        directory: DirectorySync,
    },
    /// Damage at rest, on the platter and in view at once.
    FlipBit {
        file: FileId,
        offset: usize,
        bit: u8,
    },
    /// Damage at rest: the end of the file is gone.
    CutOff {
        file: FileId,
        length: usize,
    },
}

/// Whether an operation also makes earlier changes of names durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirectorySync {
    Yes,
    No,
}

/// A change of a file's content that is not durable yet.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) step: u64,
    pub(crate) change: Change,
    /// A sync failed on it: the next successful sync will not write it.
    forsaken: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Write { offset: usize, bytes: Arc<[u8]> },
    Truncate { length: usize },
}

impl Change {
    pub(crate) fn apply_to(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => write_into(content, *offset, bytes),
            Change::Truncate { length } => content.resize(*length, 0),
        }
    }
}

/// A change of the directory that is not durable yet.
#[derive(Debug, Clone)]
pub(crate) struct PendingName {
    pub(crate) step: u64,
    change: NameChange,
}

#[derive(Debug, Clone)]
enum NameChange {
    Create { path: Arc<str>, file: FileId },
    Delete { path: Arc<str>, file: FileId },
}

impl PendingName {
    pub(crate) fn apply_to(&self, names: &mut Names) {
        match &self.change {
            NameChange::Create { path, file } => {
                names.insert(Arc::clone(path), *file);
            }
            // The name may belong to a younger file by now, whose creation became durable first.
            NameChange::Delete { path, file } if names.get(path) == Some(file) => {
                names.remove(path);
            }
            NameChange::Delete { .. } => {}
        }
    }

    fn creates(&self, wanted: FileId) -> bool {
        matches!(&self.change, NameChange::Create { file, .. } if *file == wanted)
    }
}

/// Contents are shared until changed, because most images of most files are never written to.
#[derive(Debug, Clone, Default)]
pub(crate) struct File {
    pub(crate) current: Arc<Vec<u8>>,
    pub(crate) durable: Arc<Vec<u8>>,
    pub(crate) pending: Vec<Pending>,
}

pub(crate) type Names = BTreeMap<Arc<str>, FileId>;

/// Files, names, and what of both is pending.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) files: BTreeMap<FileId, File>,
    pub(crate) names: Names,
    pub(crate) durable_names: Names,
    pub(crate) pending_names: Vec<PendingName>,
}

impl State {
    /// A disk on which everything is durable.
    pub(crate) fn at_rest(contents: Vec<(Arc<str>, Vec<u8>)>) -> Self {
        let mut state = State::default();
        for (file, (path, content)) in (0..).zip(contents) {
            let content = Arc::new(content);
            let entry = File { current: Arc::clone(&content), durable: content, pending: Vec::new() };
            state.files.insert(file, entry);
            state.names.insert(path, file);
        }
        state.durable_names = state.names.clone();
        state
    }

    pub(crate) fn next_file_id(&self) -> FileId {
        self.files.last_key_value().map_or(0, |(last, _)| last + 1)
    }

    pub(crate) fn apply(&mut self, step: u64, action: &Action) {
        match action {
            Action::Create { path, file } => {
                self.files.insert(*file, File::default());
                self.names.insert(Arc::clone(path), *file);
                let change = NameChange::Create { path: Arc::clone(path), file: *file };
                self.pending_names.push(PendingName { step, change });
            }
            Action::Write { file, offset, bytes } => {
                self.change(step, *file, Change::Write { offset: *offset, bytes: Arc::clone(bytes) });
            }
            Action::Truncate { file, length } => {
                self.change(step, *file, Change::Truncate { length: *length })
            }
            Action::Sync { file, directory } => self.sync(*file, *directory),
            Action::FailedSync { file } => self.forsake(*file),
            Action::Delete { path, file, directory } => {
                self.names.remove(path);
                let change = NameChange::Delete { path: Arc::clone(path), file: *file };
                self.pending_names.push(PendingName { step, change });
                if *directory == DirectorySync::Yes {
                    self.sync_names();
                }
            }
            Action::FlipBit { file, offset, bit } => self.damage(*file, |content| {
                if let Some(byte) = content.get_mut(*offset) {
                    *byte ^= 1 << (bit % 8);
                }
            }),
            Action::CutOff { file, length } => self.damage(*file, |content| content.truncate(*length)),
        }
    }

    fn change(&mut self, step: u64, file: FileId, change: Change) {
        if let Some(file) = self.files.get_mut(&file) {
            change.apply_to(Arc::make_mut(&mut file.current));
            file.pending.push(Pending { step, change, forsaken: false });
        }
    }

    fn sync(&mut self, id: FileId, directory: DirectorySync) {
        if let Some(file) = self.files.get_mut(&id) {
            let durable = Arc::make_mut(&mut file.durable);
            for pending in file.pending.drain(..).filter(|pending| !pending.forsaken) {
                pending.change.apply_to(durable);
            }
        }
        match directory {
            DirectorySync::Yes => self.sync_names(),
            DirectorySync::No => {
                for created in self.pending_names.extract_if(.., |pending| pending.creates(id)) {
                    created.apply_to(&mut self.durable_names);
                }
            }
        }
    }

    fn sync_names(&mut self) {
        for pending in self.pending_names.drain(..) {
            pending.apply_to(&mut self.durable_names);
        }
    }

    fn forsake(&mut self, file: FileId) {
        if let Some(file) = self.files.get_mut(&file) {
            for pending in &mut file.pending {
                pending.forsaken = true;
            }
        }
    }

    fn damage(&mut self, file: FileId, harm: impl Fn(&mut Vec<u8>)) {
        if let Some(file) = self.files.get_mut(&file) {
            harm(Arc::make_mut(&mut file.current));
            harm(Arc::make_mut(&mut file.durable));
        }
    }

    /// Bytes of all files that have a name.
    pub(crate) fn used_bytes(&self) -> usize {
        self.names.values().filter_map(|file| self.files.get(file)).map(|file| file.current.len()).sum()
    }
}

/// Writes over and behind what is there; a hole reads as zeros.
pub(crate) fn write_into(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset.saturating_add(bytes.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    if let Some(target) = content.get_mut(offset..end) {
        target.copy_from_slice(bytes);
    }
}
