//! Names of functions, for addresses of a kernel and of a server.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};
use rustc_demangle::demangle;

use super::job::Map;

/// Functions by where they begin, each with its end, if that is known.
#[derive(Default)]
pub struct Functions(BTreeMap<u64, (Option<u64>, String)>);

impl Functions {
    /// Adds one; of several at one address the first stays.
    pub fn add(&mut self, address: u64, end: Option<u64>, name: String) {
        self.0.entry(address).or_insert((end, name));
    }

    /// Returns the function that an address lies in; or behind, if its end is not known.
    pub fn at(&self, address: u64) -> Option<&str> {
        let (_, (end, name)) = self.0.range(..=address).next_back()?;
        end.is_none_or(|end| address < end).then_some(name)
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
    // A segment begins within a page, which is mapped from its beginning on; so is the page in
    // which it ends, and that may be the same page of the file as the next one begins in.
    let code = file.segments().find(|segment| {
        let (from, size) = segment.file_range();
        is_executable(segment) && (from / PAGE * PAGE..from + size).contains(&map.offset)
    });
    let Some(code) = code else { return Ok(Functions::default()) };
    let wanted = code.address().wrapping_add(map.offset).wrapping_sub(code.file_range().0);
    let mut functions = Functions::default();
    for symbol in file.symbols() {
        let is_code = symbol.kind() == SymbolKind::Text && symbol.is_definition();
        if let (true, Ok(name)) = (is_code, symbol.name()) {
            let address = symbol.address().wrapping_sub(wanted).wrapping_add(map.start);
            let end = (symbol.size() > 0).then(|| address + symbol.size());
            functions.add(address, end, format!("{:#}", demangle(name)));
        }
    }
    Ok(functions)
}

/// The page of an x86-64.
const PAGE: u64 = 4096;

fn is_executable(segment: &object::Segment<'_, '_>) -> bool {
    let object::SegmentFlags::Elf { p_flags } = segment.flags() else { return false };
    p_flags & object::elf::PF_X != 0
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::super::guest;
    use super::*;

    #[inline(never)]
    fn found_by_its_address() -> u64 {
        std::hint::black_box(7)
    }

    #[test]
    fn a_function_of_this_program_is_found_by_its_address() {
        assert_eq!(found_by_its_address(), 7);
        let maps = guest::maps(std::process::id()).unwrap();
        let code = read(&maps, "/nowhere", Path::new("/nowhere")).unwrap();
        let address = found_by_its_address as fn() -> u64 as usize as u64;
        for address in [address, address + 1] {
            let name = name(&code, address);
            assert!(name.ends_with("functions::tests::found_by_its_address"), "{name}");
        }
        assert_eq!(name(&code, 0), "[vdso]");
    }

    #[test]
    fn an_address_lies_in_the_function_that_begins_before_it() {
        let mut functions = Functions::default();
        functions.add(0x20, None, "second".to_owned());
        functions.add(0x10, None, "first".to_owned());
        functions.add(0x8, Some(0xa), "none".to_owned());
        assert_eq!(
            [0x7, 0x9, 0xa, 0xf, 0x10, 0x1f, 0x20, 0x99].map(|at| functions.at(at)),
            [
                None,
                Some("none"),
                None,
                None,
                Some("first"),
                Some("first"),
                Some("second"),
                Some("second")
            ]
        );
    }
}
