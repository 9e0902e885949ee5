//! Rules for `SKILL.md`: those of the reference validator, in its words, and a few that it lacks.

use unicode_normalization::UnicodeNormalization as _;

use crate::{
    card::is_name,
    check::{Subject, card_rules},
    finding::{Finding, Severity},
    frontmatter::{self, FIELDS, FILE, FrontMatter, Text},
    text,
};

/// Longest name, in characters.
const MAX_NAME: usize = 64;
/// Longest description, in characters; agents load it at the start of every session.
const MAX_DESCRIPTION: usize = 1024;
/// Longest compatibility, in characters.
const MAX_COMPATIBILITY: usize = 500;

/// Returns what is wrong; `form` is what the reader of the file noted, absent when there is no file.
pub(super) fn findings(subject: &Subject<'_>, form: Option<&[Finding]>) -> Vec<Finding> {
    let Some(form) = form else {
        return vec![missing(subject)];
    };
    let mut findings = form.to_vec();
    if let Some(front) = subject.front {
        unexpected(front, &mut findings);
        absent(subject, front, &mut findings);
        name(subject, front, &mut findings);
        lengths(subject, front, &mut findings);
        hidden(front, &mut findings);
        if let Some(license) = &front.license
            && let Some(finding) = card_rules::license(subject, FILE, &license.value)
        {
            findings.push(at(finding, license).field("license"));
        }
    } else if subject.has_own_card() && form.iter().all(|finding| finding.message.contains("must start with")) {
        // The Go tool's own examples have none: no agent finds such a skill, but the image is sound.
        findings.iter_mut().for_each(|finding| finding.severity = Severity::Warning);
    }
    findings
}

fn missing(subject: &Subject<'_>) -> Finding {
    let finding = Finding::error(FILE, "skill/file", "Missing required file: SKILL.md");
    if (subject.input.has_file)("skill.md") {
        finding.remedy("rename skill.md to SKILL.md")
    } else {
        finding.remedy("write SKILL.md with a name, a description and instructions, or start with: skillctl init")
    }
}

fn at(finding: Finding, text: &Text) -> Finding {
    finding.at(text.at.line, text.at.column)
}

fn unexpected(front: &FrontMatter, findings: &mut Vec<Finding>) {
    let Some(first) = front.other.first() else {
        return;
    };
    let mut names: Vec<&str> = front.other.iter().map(|key| key.text.as_str()).collect();
    names.sort_unstable();
    let allowed = FIELDS.map(|field| format!("'{field}'")).join(", ");
    let message = format!("Unexpected fields in frontmatter: {}. Only [{allowed}] are allowed.", names.join(", "));
    let finding = Finding::warning(FILE, "skill/unknown-field", message).at(first.at.line, first.at.column);
    findings
        .push(finding.field(&first.text).remedy("move them below metadata; agents that do not know them ignore them"));
}

fn absent(subject: &Subject<'_>, front: &FrontMatter, findings: &mut Vec<Finding>) {
    let message = |field: &str| format!("Missing required field in frontmatter: {field}");
    if front.name.is_none() {
        // Agents take the directory's name.
        let finding = Finding::warning(FILE, "skill/name", message("name")).at(1, 1).field("name");
        findings.push(finding.remedy("add a line such as: name: my-skill"));
    }
    if front.description.is_none() {
        let mut finding = Finding::error(FILE, "skill/description", message("description")).at(1, 1);
        if subject.has_own_card() {
            finding.severity = Severity::Warning;
        }
        findings.push(finding.field("description").remedy("say what the skill does and when to use it"));
    }
}

fn name(subject: &Subject<'_>, front: &FrontMatter, findings: &mut Vec<Finding>) {
    let Some(text) = front.name.as_ref().filter(|text| !text.value.trim().is_empty()) else {
        return;
    };
    let name: String = text.value.trim().nfkc().collect();
    let image_name = subject.card.map(|card| card.metadata.name.as_str()).unwrap_or_default();
    // What matters is whether the image gets a name.
    let severity = if is_name(image_name) { Severity::Warning } else { Severity::Error };
    let like = suggestion(&name);
    let spelling = format!("use lower-case letters, digits and single hyphens, for example: {like}");
    for message in misspelt(&name) {
        let finding = Finding { severity, ..Finding::warning(FILE, "skill/name", message) };
        findings.push(at(finding, text).field("name").remedy(&spelling));
    }
    if !name.is_ascii() && name.chars().all(is_letter) {
        let message = format!("Skill name '{name}' is not ASCII, which the names of images are");
        let remedy = match severity {
            Severity::Warning => {
                format!("the image is named {image_name}; an ASCII name would be the same for both")
            }
            Severity::Error => "give the directory an ASCII name, or write skill.yaml with metadata.name".into(),
        };
        let finding = Finding { severity, ..Finding::warning(FILE, "skill/name", message) };
        findings.push(at(finding, text).field("name").remedy(remedy));
    }
    let directory = subject.input.origin.dir_name;
    if !directory.is_empty() && directory.nfkc().collect::<String>() != name {
        let message = format!("Directory name '{directory}' must match skill name '{name}'");
        let remedy = "rename one of the two; some agents go by the directory";
        let finding = Finding::warning(FILE, "skill/directory", message);
        findings.push(at(finding, text).field("name").remedy(remedy));
    }
}

fn is_letter(c: char) -> bool {
    c.is_alphanumeric() || c == '-'
}

/// Returns the reference validator's objections to a name.
fn misspelt(name: &str) -> Vec<String> {
    let mut messages = Vec::new();
    let length = name.chars().count();
    if length > MAX_NAME {
        messages.push(format!("Skill name '{name}' exceeds {MAX_NAME} character limit ({length} chars)"));
    }
    if name != name.to_lowercase() {
        messages.push(format!("Skill name '{name}' must be lowercase"));
    }
    if name.starts_with('-') || name.ends_with('-') {
        messages.push("Skill name cannot start or end with a hyphen".into());
    }
    if name.contains("--") {
        messages.push("Skill name cannot contain consecutive hyphens".into());
    }
    if !name.chars().all(is_letter) {
        messages.push(format!(
            "Skill name '{name}' contains invalid characters. \
             Only letters, digits, and hyphens are allowed."
        ));
    }
    messages
}

/// Returns a name that is like another and legal.
pub(super) fn suggestion(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let joined: String = words.collect::<Vec<_>>().join("-").chars().take(MAX_NAME).collect();
    match joined.trim_end_matches('-') {
        "" => "my-skill".into(),
        name => name.into(),
    }
}

fn lengths(subject: &Subject<'_>, front: &FrontMatter, findings: &mut Vec<Finding>) {
    let long = |text: &Option<Text>, limit: usize| {
        let text = text.as_ref()?;
        let length = text.value.trim().chars().count();
        (length > limit).then(|| (text.clone(), length))
    };
    if let Some((text, length)) = long(&front.description, MAX_DESCRIPTION) {
        let message = format!("Description exceeds {MAX_DESCRIPTION} character limit ({length} chars)");
        let mut finding = at(Finding::error(FILE, "skill/description", message), &text);
        if subject.has_own_card() {
            finding.severity = Severity::Warning;
        }
        findings.push(finding.field("description").remedy("move details into the body"));
    }
    if let Some((text, length)) = long(&front.compatibility, MAX_COMPATIBILITY) {
        let message = format!("Compatibility exceeds {MAX_COMPATIBILITY} character limit ({length} chars)");
        let finding = at(Finding::warning(FILE, "skill/compatibility", message), &text);
        findings.push(finding.field("compatibility").remedy("move details into the body"));
    }
}

fn hidden(front: &FrontMatter, findings: &mut Vec<Finding>) {
    let fields = [
        ("name", &front.name),
        ("description", &front.description),
        ("license", &front.license),
        ("compatibility", &front.compatibility),
        ("allowed-tools", &front.allowed_tools),
    ];
    let own = fields.iter().filter_map(|(field, text)| Some(((*field).to_owned(), text.as_ref()?)));
    let more = front.metadata.iter().map(|(key, text)| (format!("metadata.{key}"), text));
    for (field, text) in own.chain(more) {
        if let Some(finding) = hidden_text(frontmatter::FILE, "skill/hidden-text", &text.value) {
            findings.push(at(finding, text).field(field));
        }
    }
}

/// Returns a finding about a text that holds characters which a reader does not see.
pub(super) fn hidden_text(file: &str, rule: &'static str, value: &str) -> Option<Finding> {
    let (c, kind) = text::worst_hidden(value)?;
    let message = format!("contains {} (U+{:04X})", kind.name(), u32::from(c));
    let finding = match kind {
        text::Hidden::Invisible => Finding::warning(file, rule, message),
        _ => Finding::error(file, rule, message),
    };
    Some(finding.remedy("remove it; typing the text anew does"))
}
