//! `yoink-lab list`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use super::show;
use crate::catalogue::{self, Entry, Kind};
use crate::cli::ListArgs;

/// Lists what there is.
///
/// # Errors
/// Nobody reads.
pub fn list(args: &ListArgs) -> Result<ExitCode> {
    let entries = catalogue::all();
    if args.json {
        let entries: Vec<Value> = entries.iter().map(described).collect();
        show(&serde_json::to_string_pretty(&entries)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let width = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    for (kind, title) in [
        (Kind::Generation, "Generations of the older systems"),
        (Kind::Museum, "Bugs that people ship believing that they have fixed them"),
        (Kind::Engine, "Yoink's engines"),
    ] {
        let of_kind: Vec<&Entry> = entries.iter().filter(|entry| entry.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        show(title)?;
        for entry in of_kind {
            let breaks = entry.defect.map_or("", |defect| defect.breaks.name());
            show(&format!("  {:width$}  {breaks:10}  {}", entry.name, entry.line))?;
        }
        show("")?;
    }
    show("Run one with `yoink-lab run NAME`, all with `yoink-lab run all`.")?;
    Ok(ExitCode::SUCCESS)
}

fn described(entry: &Entry) -> Value {
    json!({
        "strategy": entry.name,
        "kind": match entry.kind {
            Kind::Generation => "generation",
            Kind::Museum => "museum",
            Kind::Engine => "engine",
        },
        "does": entry.line,
        "breaks": entry.defect.map(|defect| defect.breaks.name()),
        "also": entry.defect.iter().flat_map(|defect| defect.also).map(|broken| broken.name()).collect::<Vec<_>>(),
        "how": entry.defect.map(|defect| defect.how),
        "repair": entry.repair,
    })
}
