//! What an answer survives.

/// When an accepted order's event is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Before the answer, with an fsync. Survives: process kill yes, power loss yes.
    #[default]
    Fsync,
    /// Before the answer, in the operating system's cache. Survives: process kill yes, power loss no.
    OsBuffer,
    /// When the servers behind the redis engine see fit: an operator said so, and every answer says so too.
    Relaxed,
}

impl Durability {
    /// The setting's name in configuration and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::OsBuffer => "os-buffer",
            Self::Relaxed => "relaxed",
        }
    }

    /// What it survives, as a sentence.
    pub fn survives(self) -> &'static str {
        match self {
            Self::Fsync => "process kill: yes, power loss: yes",
            Self::OsBuffer => "process kill: yes, power loss: no",
            Self::Relaxed => "what the settings of Redis and PostgreSQL keep; not promised",
        }
    }

    /// SQLite's word for it.
    pub(crate) fn synchronous(self) -> &'static str {
        match self {
            Self::Fsync => "FULL",
            Self::OsBuffer | Self::Relaxed => "OFF",
        }
    }
}
