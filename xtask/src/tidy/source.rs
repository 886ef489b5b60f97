//! Just enough of Rust's grammar to count lines: what is code, and where functions begin and end.

/// The source with the inside of comments, strings and characters replaced by blanks. Lines stay where they were.
pub(super) fn code_of(source: &str) -> String {
    let characters: Vec<char> = source.chars().collect();
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let mut code = String::with_capacity(source.len());
    let mut index = 0;
    while index < characters.len() {
        let end = match (at(index), at(index + 1)) {
            ('/', '/') => find(&characters, index, |i| at(i) == '\n'),
            ('/', '*') => end_of_block_comment(&characters, index),
            ('r' | 'b', _) if is_raw_string(&characters, index) => end_of_raw_string(&characters, index),
            ('"', _) => end_of_string(&characters, index),
            ('\'', _) if is_character(&characters, index) => end_of_character(&characters, index),
            (other, _) => {
                code.push(other);
                index += 1;
                continue;
            }
        };
        let skipped = characters.get(index..end.min(characters.len())).unwrap_or_default();
        code.extend(skipped.iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        index = end.max(index + 1);
    }
    code
}

fn find(characters: &[char], from: usize, is_end: impl Fn(usize) -> bool) -> usize {
    (from..characters.len()).find(|index| is_end(*index)).unwrap_or(characters.len())
}

fn end_of_block_comment(characters: &[char], start: usize) -> usize {
    let (mut depth, mut index) = (0_usize, start);
    while index + 1 < characters.len() {
        match characters.get(index..index + 2) {
            Some(['/', '*']) => (depth, index) = (depth + 1, index + 2),
            Some(['*', '/']) => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            return index;
        }
    }
    characters.len()
}

fn is_word(c: Option<&char>) -> bool {
    c.is_some_and(|c| c.is_alphanumeric() || *c == '_')
}

fn is_raw_string(characters: &[char], start: usize) -> bool {
    if start > 0 && is_word(characters.get(start - 1)) {
        return false;
    }
    let start = if characters.get(start) == Some(&'b') { start + 1 } else { start };
    if characters.get(start) != Some(&'r') {
        return false;
    }
    let quote = find(characters, start + 1, |index| characters.get(index) != Some(&'#'));
    characters.get(quote) == Some(&'"')
}

fn end_of_raw_string(characters: &[char], start: usize) -> usize {
    let quote = find(characters, start, |index| characters.get(index) == Some(&'"'));
    let hashes = characters.get(start..quote).unwrap_or_default().iter().filter(|c| **c == '#').count();
    let closes = |index: usize| {
        let tail = characters.get(index + 1..index + 1 + hashes);
        characters.get(index) == Some(&'"') && tail.is_some_and(|tail| tail.iter().all(|c| *c == '#'))
    };
    find(characters, quote + 1, closes) + 1 + hashes
}

fn end_of_string(characters: &[char], start: usize) -> usize {
    let mut index = start + 1;
    while let Some(c) = characters.get(index) {
        match c {
            '\\' => index += 2,
            '"' => return index + 1,
            _ => index += 1,
        }
    }
    characters.len()
}

/// Tells a character from a lifetime.
fn is_character(characters: &[char], start: usize) -> bool {
    characters.get(start + 1) == Some(&'\\') || characters.get(start + 2) == Some(&'\'')
}

fn end_of_character(characters: &[char], start: usize) -> usize {
    let from = if characters.get(start + 1) == Some(&'\\') { start + 3 } else { start + 2 };
    find(characters, from, |index| characters.get(index) == Some(&'\'')) + 1
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    /// Its first line, counted from 1.
    pub(super) line: usize,
    /// From `fn` to the closing brace.
    pub(super) lines: usize,
}

/// The functions of a source that went through [`code_of`].
pub(super) fn functions(code: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    let mut from = 0;
    while let Some(found) = code.get(from..).and_then(|rest| rest.find("fn ")) {
        let start = from + found;
        from = start + 3;
        let before = code.get(..start).and_then(|text| text.chars().next_back());
        if is_word(before.as_ref()) {
            continue;
        }
        let rest = code.get(start + 3..).unwrap_or_default();
        let name: String = rest.chars().take_while(|c| is_word(Some(c))).collect();
        if name.is_empty() {
            continue;
        }
        if let Some(body) = body_of(rest) {
            let line = code.get(..start).unwrap_or_default().matches('\n').count() + 1;
            functions.push(Function { name, line, lines: body.matches('\n').count() + 1 });
        }
    }
    functions
}

/// From the name to the closing brace; nothing for a declaration that ends with a semicolon.
fn body_of(rest: &str) -> Option<&str> {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (index, c) in rest.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            ';' if braces == 0 && brackets == 0 => return None,
            '{' => braces += 1,
            '}' if braces <= 1 => return rest.get(..=index),
            '}' => braces -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_or_commented_is_not_code() {
        let source = "let a = \"fn x() { \\\" \"; // fn y() {\nlet b = r#\"fn z() \" {\"#; /* fn /* */ { */ let c = '{'; let d: &'static str = \"\";";
        let code = code_of(source);
        assert!(!code.contains('{') && !code.contains("fn"), "{code}");
        assert!(code.contains("&'static str"), "{code}");
        assert_eq!(code.matches('\n').count(), 1);
    }

    #[test]
    fn functions_are_measured_from_their_first_to_their_last_line() {
        let code = code_of(
            "trait T { fn declared(&self); }\n\npub fn one() -> [u8; 2] {\n    {\n    }\n}\nfn two() {}\n",
        );
        let expected = |name: &str, line, lines| Function { name: name.to_owned(), line, lines };
        assert_eq!(functions(&code), [expected("one", 3, 4), expected("two", 7, 1)]);
    }
}
