//! Names of functions, for addresses of a kernel and of a server.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};
use rustc_demangle::demangle;

use super::job::Map;

/// Functions by where they begin.
#[derive(Default)]
pub struct Functions(BTreeMap<u64, String>);

impl Functions {
    /// Adds one; of several at one address the first stays.
    pub fn add(&mut self, address: u64, name: String) {
        self.0.entry(address).or_insert(name);
    }

    /// Returns the function that an address lies in, or behind.
    pub fn at(&self, address: u64) -> Option<&str> {
        self.0.range(..=address).next_back().map(|(_, name)| name.as_str())
    }
}

/// The code of a process: each of its files with its functions.
pub type Code = Vec<(Map, Functions)>;

/// Reads the functions of the files that are mapped. `server` is the file of the host's that the
/// guest has at `place`.
pub fn read(maps: &[Map], place: &str, server: &Path) -> Result<Code> {
    let files = maps.iter().filter(|map| map.file.starts_with('/'));
    files
        .map(|map| {
            let path = if map.file == place { server } else { Path::new(&map.file) };
            Ok((map.clone(), functions_of(path, map)?))
        })
        .collect()
}

/// Returns the function of a process that an address lies in.
pub fn name(code: &Code, address: u64) -> String {
    let Some((map, functions)) =
        code.iter().find(|(map, _)| (map.start..map.end).contains(&address))
    else {
        return "[vdso]".to_owned();
    };
    let file = Path::new(&map.file).file_name().unwrap_or_default().to_string_lossy();
    functions.at(address).map_or_else(|| format!("[{file}]"), str::to_owned)
}

/// Reads the functions of a file, at the addresses where they are mapped. A file without names has
/// none.
fn functions_of(path: &Path, map: &Map) -> Result<Functions> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let file = object::File::parse(&*bytes).with_context(|| path.display().to_string())?;
    // The code stands here in the file, and wants to stand there in memory.
    let code = file.segments().find(|segment| {
        let (from, size) = segment.file_range();
        (from..from + size).contains(&map.offset)
    });
    let Some(code) = code else { return Ok(Functions::default()) };
    let wanted = code.address() + (map.offset - code.file_range().0);
    let mut functions = Functions::default();
    for symbol in file.symbols() {
        let is_code = symbol.kind() == SymbolKind::Text && symbol.is_definition();
        if let (true, Ok(name)) = (is_code, symbol.name()) {
            let address = symbol.address().wrapping_sub(wanted).wrapping_add(map.start);
            functions.add(address, format!("{:#}", demangle(name)));
        }
    }
    Ok(functions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_lies_in_the_function_that_begins_before_it() {
        let mut functions = Functions::default();
        functions.add(0x20, "second".to_owned());
        functions.add(0x10, "first".to_owned());
        assert_eq!(
            [0xf, 0x10, 0x1f, 0x20, 0x99].map(|at| functions.at(at)),
            [None, Some("first"), Some("first"), Some("second"), Some("second")]
        );
    }
}
