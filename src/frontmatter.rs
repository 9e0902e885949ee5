//! `SKILL.md`: its front matter, as the reference validator and as agents read it, and the number of its words.

use crate::{
    finding::{Finding, Severity},
    yaml::{self, Key, Node, Place, Value},
};

mod words;

pub use words::WordCount;

/// The file's name, in exactly this case.
pub const FILE: &str = "SKILL.md";

/// Most bytes between the two fences. Names and descriptions together have at most two thousand characters, and agents
/// read the front matter of every skill at the start of a session.
pub const MAX_FRONT_MATTER: usize = 64 << 10;

/// The fields that the specification knows, sorted as the reference validator prints them.
pub const FIELDS: [&str; 6] = ["allowed-tools", "compatibility", "description", "license", "metadata", "name"];

/// A text and where its value begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub value: String,
    /// Its first character in the file.
    pub at: Place,
}

/// What stands between the fences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrontMatter {
    /// `name`.
    pub name: Option<Text>,
    /// `description`.
    pub description: Option<Text>,
    /// `license`.
    pub license: Option<Text>,
    /// `compatibility`.
    pub compatibility: Option<Text>,
    /// `allowed-tools`; a list is joined with spaces.
    pub allowed_tools: Option<Text>,
    /// The texts of `metadata`, in the order of the file.
    pub metadata: Vec<(String, Text)>,
    /// Names of the fields that the specification does not know.
    pub other: Vec<Key>,
}

impl FrontMatter {
    /// Returns a text of `metadata`.
    pub fn metadata(&self, key: &str) -> Option<&Text> {
        self.metadata.iter().find(|(have, _)| have == key).map(|(_, text)| text)
    }
}

/// What [`parse`] made of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The front matter; absent when it cannot be read at all.
    pub front: Option<FrontMatter>,
    /// Whether the file has an opening fence.
    pub fenced: bool,
    /// What is wrong with the form; [`check`](crate::check) looks at the values.
    pub findings: Vec<Finding>,
}

/// Reads the front matter of `SKILL.md`, of which only the first [`MAX_FRONT_MATTER`] bytes and the fences are looked at.
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed { front: None, fenced: false, findings: Vec::new() };
    match read(bytes, &mut parsed) {
        Ok(front) => parsed.front = Some(front),
        Err(finding) => parsed.findings.push(*finding),
    }
    parsed
}

fn read(bytes: &[u8], parsed: &mut Parsed) -> Result<FrontMatter, Box<Finding>> {
    let start = opening(bytes, &mut parsed.findings)?;
    parsed.fenced = true;
    let text = yaml_text(bytes, start)?;
    // Blank lines in place of the opening fence keep the numbers of lines true.
    let lines_before = bytes[..start].iter().filter(|byte| **byte == b'\n').count();
    let padded = format!("{}{text}", "\n".repeat(lines_before));
    if let Some(offset) = text.find("---") {
        let message = "'---' inside the frontmatter ends it for the reference validator";
        let at = yaml::place_at(&padded, lines_before + offset);
        parsed.findings.push(form(Finding::warning(FILE, FENCES, message), at).remedy("use another dash"));
    }
    let root = document(&padded, &mut parsed.findings)?;
    Ok(fields(root, &mut parsed.findings))
}

/// Returns where the line after the opening fence begins.
fn opening(bytes: &[u8], findings: &mut Vec<Finding>) -> Result<usize, Box<Finding>> {
    let message = "SKILL.md must start with YAML frontmatter (---)";
    let error = || form(Finding::error(FILE, FENCES, message), Place::START);
    let unmarked = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if unmarked.len() < bytes.len() {
        let warning = form(Finding::warning(FILE, FENCES, message), Place::START);
        findings.push(warning.remedy("remove the byte order mark before the first ---"));
    }
    let mut offset = bytes.len() - unmarked.len();
    for line in unmarked[..unmarked.len().min(MAX_FRONT_MATTER)].split_inclusive(|byte| *byte == b'\n') {
        offset += line.len();
        let line = line.trim_ascii();
        if line == b"---" {
            if !unmarked.starts_with(b"---") {
                findings.push(error().remedy("remove what stands before the first ---"));
            }
            return Ok(offset);
        }
        if !line.is_empty() {
            break;
        }
    }
    let remedy = "begin the file with the lines: ---, name: …, description: …, ---";
    Err(error().remedy(remedy).into())
}

/// Returns the text between the fences.
fn yaml_text(bytes: &[u8], start: usize) -> Result<&str, Box<Finding>> {
    let rest = &bytes[start..];
    let mut length = 0;
    // A little more than fits, so that a fence right after the last allowed byte is still seen.
    for line in rest[..rest.len().min(MAX_FRONT_MATTER + 16)].split_inclusive(|byte| *byte == b'\n') {
        if line.trim_ascii_end() == b"---" && length <= MAX_FRONT_MATTER {
            return yaml::utf8(&rest[..length]).map_err(|error| {
                let before = bytes[..start].iter().filter(|byte| **byte == b'\n').count();
                let at = Place { line: error.at.line + before, column: error.at.column };
                invalid_yaml(&error.message, at).remedy("save the file as UTF-8").into()
            });
        }
        length += line.len();
    }
    let error = |message: String| form(Finding::error(FILE, FENCES, message), Place::START);
    let finding = if rest.len() > MAX_FRONT_MATTER {
        let message = format!("SKILL.md frontmatter exceeds the limit of {MAX_FRONT_MATTER} bytes");
        error(message).remedy("close it with a line --- and move long text below")
    } else {
        error("SKILL.md frontmatter not properly closed with ---".into()).remedy("add a line --- after the last field")
    };
    Err(finding.into())
}

/// Parses the YAML, a second time with values quoted if that is what it lacks.
fn document(text: &str, findings: &mut Vec<Finding>) -> Result<Node, Box<Finding>> {
    let document = match yaml::parse(text.as_bytes(), text.len()) {
        Ok(document) => document,
        Err(error) => {
            let retried = quote_values(text).and_then(|(quoted, key)| {
                let document = yaml::parse(quoted.as_bytes(), quoted.len()).ok()?;
                Some((document, key))
            });
            let Some((document, key)) = retried else {
                let remedy = "correct the YAML; a text with ': ' or ' #' in it needs quotes";
                return Err(invalid_yaml(&error.message, error.at).remedy(remedy).into());
            };
            let mut found = invalid_yaml(&format!("the value of '{}' has an unquoted ': '", key.text), key.at);
            found.severity = Severity::Warning;
            findings.push(found.field(key.text).remedy("put the value in quotes"));
            document
        }
    };
    if let Some(at) = document.ignored {
        return Err(invalid_yaml("more than one document", at)
            .remedy("remove the line that ends the first one")
            .into());
    }
    match document.root {
        Some(node) if matches!(node.value, Value::Mapping(_)) => Ok(node),
        other => {
            let at = other.map_or(Place::START, |node| node.at);
            let error = Finding::error(FILE, "skill/yaml", "SKILL.md frontmatter must be a YAML mapping");
            Err(form(error, at).remedy("write fields such as: name: my-skill").into())
        }
    }
}

/// Quotes plain values that contain `: `, as the specification's client guide asks; also returns the first such key, with
/// the place of its value.
fn quote_values(text: &str) -> Option<(String, Key)> {
    let mut out = String::with_capacity(text.len() + 16);
    let mut first = None;
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let quote = plain_value(line).filter(|(_, value)| value.contains(": ") || value.ends_with(':'));
        match quote {
            Some((head, value)) => {
                out.extend([head, "'", &value.replace('\'', "''")]);
                let at = Place { line: number + 1, column: head.chars().count() + 1 };
                first.get_or_insert_with(|| Key { text: head.trim().trim_end_matches(':').to_owned(), at });
            }
            None => out.push_str(line),
        }
        // What is indented more belongs to the value, and is quoted with it or left alone with it.
        if quote.is_some() || line.split_once(": ").is_some_and(|(_, value)| !value.trim().is_empty()) {
            while let Some((_, more)) = lines.next_if(|(_, more)| indent(more) > indent(line)) {
                out.push('\n');
                match quote {
                    Some(_) => out.push_str(&more.trim_end().replace('\'', "''")),
                    None => out.push_str(more),
                }
            }
        }
        out.push_str(if quote.is_some() { "'\n" } else { "\n" });
    }
    first.map(|key| (out, key))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Splits `key: value` before a value that is neither quoted, block, flow, alias nor comment.
fn plain_value(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(": ")?;
    let plain_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let value = value.trim_start();
    if !key.trim_start().chars().all(plain_key) || value.is_empty() || value.starts_with(INDICATORS) {
        return None;
    }
    Some((&line[..line.len() - value.len()], value.trim_end()))
}

/// Characters that begin something other than a plain value.
const INDICATORS: [char; 14] = ['"', '\'', '|', '>', '[', ']', '{', '}', '&', '*', '!', '#', '%', '@'];

fn fields(root: Node, findings: &mut Vec<Finding>) -> FrontMatter {
    let mut front = FrontMatter::default();
    let Value::Mapping(entries) = root.value else {
        return front;
    };
    for (key, node) in entries {
        match key.text.as_str() {
            "name" => front.name = Some(required(&node, "skill/name", "name", findings)),
            "description" => {
                let text = required(&node, "skill/description", "description", findings);
                front.description = Some(text);
            }
            "license" => front.license = optional(&node, "skill/license", "license", findings),
            "compatibility" => {
                front.compatibility = optional(&node, "skill/compatibility", "compatibility", findings);
            }
            "allowed-tools" => front.allowed_tools = tools(&node, findings),
            "metadata" => front.metadata = metadata(node, findings),
            _ => front.other.push(key),
        }
    }
    front
}

/// Returns a required text; anything else counts as empty, which is reported here.
fn required(node: &Node, rule: &'static str, field: &str, findings: &mut Vec<Finding>) -> Text {
    let value = node.text().unwrap_or_default().to_owned();
    if value.trim().is_empty() {
        let error = Finding::error(FILE, rule, format!("Field '{field}' must be a non-empty string"));
        findings.push(form(error, node.at).field(field).remedy(format!("write a text after {field}:")));
    }
    Text { value, at: node.at }
}

fn optional(node: &Node, rule: &'static str, field: &str, findings: &mut Vec<Finding>) -> Option<Text> {
    let text = node.text().map(|value| Text { value: value.to_owned(), at: node.at });
    if text.is_none() {
        findings.push(not_a_string(rule, field, node.at));
    }
    text
}

fn tools(node: &Node, findings: &mut Vec<Finding>) -> Option<Text> {
    let Value::Sequence(items) = &node.value else {
        return optional(node, "skill/allowed-tools", "allowed-tools", findings);
    };
    let found = not_a_string("skill/allowed-tools", "allowed-tools", node.at);
    findings.push(found.remedy("write the tools in one line, separated by spaces"));
    let tools: Vec<&str> = items.iter().filter_map(Node::text).collect();
    Some(Text { value: tools.join(" "), at: node.at })
}

fn metadata(node: Node, findings: &mut Vec<Finding>) -> Vec<(String, Text)> {
    let mut texts = Vec::new();
    match node.value {
        Value::Null => {}
        Value::Mapping(entries) => {
            for (key, node) in entries {
                let field = format!("metadata.{}", key.text);
                if let Some(text) = optional(&node, "skill/metadata", &field, findings) {
                    texts.push((key.text, text));
                }
            }
        }
        Value::Scalar { .. } | Value::Sequence(_) => {
            let warning = Finding::warning(FILE, "skill/metadata", "Field 'metadata' must be a mapping of strings");
            findings.push(form(warning, node.at).field("metadata").remedy("write metadata as keys with one text each"));
        }
    }
    texts
}

const FENCES: &str = "skill/frontmatter";

fn form(finding: Finding, at: Place) -> Finding {
    finding.at(at.line, at.column)
}

fn invalid_yaml(message: &str, at: Place) -> Finding {
    form(Finding::error(FILE, "skill/yaml", format!("Invalid YAML in frontmatter: {message}")), at)
}

fn not_a_string(rule: &'static str, field: &str, at: Place) -> Finding {
    let warning = Finding::warning(FILE, rule, format!("Field '{field}' must be a string"));
    form(warning, at).field(field).remedy("write it as one text")
}

#[cfg(test)]
mod tests;
