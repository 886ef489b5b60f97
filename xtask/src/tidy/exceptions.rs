//! What may break a rule for now. The list may only shrink: an exception that is not needed, or larger than needed, is
//! a breach itself.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::Breach;

const FILE: &str = "xtask/tidy-exceptions.txt";

/// Lines of `rule path size`.
#[derive(Debug, Default)]
pub(super) struct Exceptions {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    rule: String,
    path: String,
    size: usize,
    line: usize,
}

impl Exceptions {
    /// Reads the list.
    pub(super) fn read(path: &Path) -> Result<Exceptions> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Exceptions> {
        let mut entries = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let words: Vec<_> = line.split_whitespace().collect();
            let [rule, path, size] = words.as_slice() else {
                anyhow::bail!("{FILE}:{}: write `rule path size # why`", number + 1);
            };
            let size =
                size.parse().with_context(|| format!("{FILE}:{}: {size:?} is not a size", number + 1))?;
            entries.push(Entry {
                rule: (*rule).to_owned(),
                path: (*path).to_owned(),
                size,
                line: number + 1,
            });
        }
        Ok(Exceptions { entries })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes out what is excepted, and puts in exceptions that could shrink.
    pub(super) fn apply(&self, breaches: Vec<Breach>) -> Vec<Breach> {
        let mut left = Vec::new();
        let mut largest = vec![0; self.entries.len()];
        for breach in breaches {
            let excepts = |entry: &Entry| {
                entry.rule == breach.rule && entry.path == breach.path && breach.size <= entry.size
            };
            match self.entries.iter().position(excepts) {
                Some(index) => {
                    if let Some(largest) = largest.get_mut(index) {
                        *largest = breach.size.max(*largest);
                    }
                }
                None => left.push(breach),
            }
        }
        for (entry, largest) in self.entries.iter().zip(largest) {
            if largest < entry.size {
                let what =
                    format!("{} {} needs only {largest}: shrink or remove this line", entry.rule, entry.path);
                let (path, line, size) = (FILE.to_owned(), entry.line, 1);
                left.push(Breach { path, line, rule: "exception-too-large", what, size });
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breach(size: usize) -> Breach {
        Breach { path: "a.rs".to_owned(), line: 1, rule: "file-length", what: String::new(), size }
    }

    #[test]
    fn an_exception_covers_what_it_names_and_not_more() {
        let exceptions = Exceptions::parse("# why\nfile-length a.rs 600 # being split\n").unwrap();
        assert_eq!(exceptions.apply(vec![breach(600)]), []);
        assert_eq!(exceptions.apply(vec![breach(601)]).len(), 2);
    }

    #[test]
    fn an_exception_that_could_shrink_is_a_breach() {
        let exceptions = Exceptions::parse("file-length a.rs 600\n").unwrap();
        let rules =
            |breaches| exceptions.apply(breaches).into_iter().map(|breach| breach.rule).collect::<Vec<_>>();
        assert_eq!(rules(vec![breach(590)]), ["exception-too-large"]);
        assert_eq!(rules(vec![]), ["exception-too-large"]);
        assert!(Exceptions::parse("file-length a.rs\n").is_err());
    }
}
