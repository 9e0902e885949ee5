//! Rules for the card, given or derived.

use crate::{
    card::{self, Card, Violation, is_name},
    check::{
        Subject,
        skill_rules::{hidden_text, suggestion},
    },
    finding::{Finding, Severity},
    frontmatter,
};

/// Longest version: a tag has at most 128 characters, and `-testing` is added.
const MAX_VERSION: usize = 128 - "-testing".len();

pub(super) fn findings(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let Some(card) = subject.card else {
        return;
    };
    // What is wrong with the name in SKILL.md was said in the reference validator's words.
    let name_said = findings.iter().any(|found| found.rule == "skill/name" && found.severity == Severity::Error);
    for violation in violations(subject, card) {
        let said = violation.field == "metadata.name" && name_said || missing_in_skill_md(&violation, subject);
        if subject.has_own_card() || !said {
            findings.push(objection(subject, card, &violation));
        }
    }
    version(subject, card, findings);
    prompt(subject, card, findings);
    if subject.has_own_card() {
        agreement(subject, card, findings);
        if let Some(finding) = license(subject, card::FILE, &card.metadata.license) {
            findings.push(subject.place(finding, "metadata.license"));
        }
    }
    if subject.root.is_some() {
        hidden(subject, card, findings);
    }
}

/// Returns the schema's objections. What a v1alpha2 card takes from `SKILL.md` names an image all the same.
fn violations(subject: &Subject<'_>, card: &Card) -> Vec<Violation> {
    let mut all = card.violations();
    if card.is_v1alpha2() && subject.front.is_some() {
        let named = Card { api_version: card::V1ALPHA1.into(), ..card.clone() };
        let of_name = |found: &Violation| matches!(found.field.as_str(), "metadata.name" | "metadata.namespace");
        all.extend(named.violations().into_iter().filter(of_name));
    }
    all
}

fn missing_in_skill_md(violation: &Violation, subject: &Subject<'_>) -> bool {
    violation.field == "metadata.description"
        && subject.front.is_none_or(|front| front.description.as_ref().is_none_or(|text| text.value.trim().is_empty()))
}

fn objection(subject: &Subject<'_>, card: &Card, violation: &Violation) -> Finding {
    let field = violation.field.as_str();
    let finding = Finding::error(card::FILE, rule(field), violation.message.clone());
    subject.place(finding, field).remedy(remedy(subject, card, violation))
}

fn rule(field: &str) -> &'static str {
    match field {
        "apiVersion" => "card/api-version",
        "kind" => "card/kind",
        "metadata.name" => "card/name",
        "metadata.namespace" => "card/namespace",
        "metadata.version" => "card/version",
        "metadata.description" => "card/description",
        "metadata.display-name" | "metadata.title" => "card/display-name",
        _ if field.starts_with("metadata.authors") => "card/authors",
        _ if field.starts_with("metadata.tags") => "card/tags",
        _ => "card/value",
    }
}

fn remedy(subject: &Subject<'_>, card: &Card, violation: &Violation) -> String {
    let field = violation.field.as_str();
    let metadata = &card.metadata;
    match field {
        "apiVersion" => format!("write: apiVersion: {}", card::V1ALPHA1),
        "kind" => "write: kind: SkillCard".into(),
        "metadata.name" => {
            let like = if metadata.name.is_empty() { subject.input.origin.dir_name } else { &metadata.name };
            format!("use lower-case letters, digits and single hyphens, for example: {}", suggestion(like))
        }
        "metadata.namespace" => {
            let parts = metadata.namespace.split('/').map(suggestion).collect::<Vec<_>>().join("/");
            let like = if metadata.namespace.is_empty() { card::LOCAL_NAMESPACE } else { &parts };
            let what = "use lower-case letters, digits, single hyphens and slashes";
            if subject.root.is_some_and(|_| subject.has_own_card()) {
                format!("{what}, for example: {like}")
            } else {
                format!("{what}: write metadata.namespace in SKILL.md, for example: {like}")
            }
        }
        "metadata.version" => format!("write three numbers, for example: {}", card::DEFAULT_VERSION),
        "metadata.description" => "say what the skill does and when to use it".into(),
        _ if violation.message.starts_with("maxLength") => "shorten it".into(),
        _ if violation.message.starts_with("minLength") => "write a text, or remove it".into(),
        _ => "correct the value".into(),
    }
}

/// A version becomes a tag, alone and with a state after it.
fn version(subject: &Subject<'_>, card: &Card, findings: &mut Vec<Finding>) {
    let version = card.metadata.version.as_str();
    let Ok(parsed) = semver::Version::parse(version) else {
        return;
    };
    let plain = version.split('+').next().unwrap_or_default();
    let mut note = |message: String, remedy: String| {
        let finding = Finding::error(card::FILE, "card/version", message);
        findings.push(subject.place(finding, "metadata.version").remedy(remedy));
    };
    if !parsed.build.is_empty() {
        note(format!("'{version}' cannot be a tag, which has no '+'"), format!("write: {plain}"));
    }
    for state in ["draft", "testing"] {
        if let Some(without) = plain.strip_suffix(state).and_then(|rest| rest.strip_suffix('-')) {
            let message = format!("'{version}' is the tag of version '{without}' in the state {state}");
            note(message, format!("write: {without} (the state is added to the tag)"));
        }
    }
    if version.len() > MAX_VERSION {
        note(format!("maxLength: got {}, want {MAX_VERSION}", version.len()), "shorten it".into());
    }
}

fn prompt(subject: &Subject<'_>, card: &Card, findings: &mut Vec<Finding>) {
    let prompt = card.spec.as_ref().map(|spec| spec.prompt.as_str()).unwrap_or_default();
    let path = prompt.strip_prefix("./").unwrap_or(prompt);
    // A missing SKILL.md has its own finding.
    if path.is_empty() || path == frontmatter::FILE || (subject.input.has_file)(path) {
        return;
    }
    let finding = Finding::error(card::FILE, "card/prompt", format!("'{prompt}' does not exist in the skill"));
    findings
        .push(subject.place(finding, "spec.prompt").remedy("name the file with the instructions, usually SKILL.md"));
}

/// `skill.yaml` and `SKILL.md` describe one skill.
fn agreement(subject: &Subject<'_>, card: &Card, findings: &mut Vec<Finding>) {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let front = subject.front;
    let (name, directory) = (card.metadata.name.as_str(), subject.input.origin.dir_name);
    let mut note = |field: &str, rule: &'static str, message: String| {
        let finding = Finding::warning(card::FILE, rule, message);
        findings.push(subject.place(finding, field).remedy("make the two the same"));
    };
    match front.and_then(|front| front.name.as_ref()).map(|text| text.value.trim()).filter(|name| !name.is_empty()) {
        Some(other) if other != name && !name.is_empty() => {
            note("metadata.name", "card/agreement", format!("'{name}' differs from name '{other}' in SKILL.md"));
        }
        None if is_name(name) && !directory.is_empty() && directory != name => {
            let message = format!("Directory name '{directory}' must match skill name '{name}'");
            note("metadata.name", "card/directory", message);
        }
        _ => {}
    }
    let description = words(&card.metadata.description);
    let other = front.and_then(|front| front.description.as_ref()).map(|text| words(&text.value)).unwrap_or_default();
    if !description.is_empty() && !other.is_empty() && description != other {
        note("metadata.description", "card/agreement", "differs from the description in SKILL.md".into());
    }
}

/// Returns a finding about a license that is neither an SPDX expression nor a bundled file.
pub(super) fn license(subject: &Subject<'_>, file: &str, license: &str) -> Option<Finding> {
    let license = license.trim();
    // `Complete terms in LICENSE.txt` is as common as a bare file name.
    let mut words = license.split_whitespace().map(|word| word.trim_matches(['"', '\'', '`', '(', ')', ',', '.']));
    if license.is_empty() || (subject.input.has_file)(license) || words.any(|word| (subject.input.has_file)(word)) {
        return None;
    }
    let mode = spdx::ParseMode { allow_deprecated: true, ..spdx::ParseMode::STRICT };
    let error = spdx::Expression::parse_mode(license, mode).err()?;
    let rule = if file == card::FILE { "card/license" } else { "skill/license" };
    let message = format!("'{license}' is neither an SPDX expression nor a bundled file: {}", error.reason);
    // Not by `imprecise_license_id`, which is inlined with a copy of all 700 licenses, for the dynamic linker to relocate.
    let like = spdx::Expression::canonicalize(license).ok().flatten();
    let remedy = match like.filter(|like| spdx::Expression::parse(like).is_ok()) {
        Some(like) => format!("write: {like}"),
        None => "write an SPDX identifier, for example: Apache-2.0, or LicenseRef- and a name of your own".into(),
    };
    Some(Finding::warning(file, rule, message).remedy(remedy))
}

fn hidden(subject: &Subject<'_>, card: &Card, findings: &mut Vec<Finding>) {
    let (metadata, catalog) = (&card.metadata, &card.catalog);
    let mut texts = vec![
        ("metadata.version".to_owned(), metadata.version.as_str()),
        (format!("metadata.{}", if card.is_v1alpha2() { "title" } else { "display-name" }), &metadata.display_name),
        ("metadata.vendor".to_owned(), &catalog.vendor),
    ];
    if subject.has_own_card() {
        texts.push(("metadata.name".to_owned(), &metadata.name));
        texts.push(("metadata.namespace".to_owned(), &metadata.namespace));
        texts.push(("metadata.description".to_owned(), &metadata.description));
        texts.push(("metadata.license".to_owned(), &metadata.license));
        texts.push(("metadata.compatibility".to_owned(), &metadata.compatibility));
        texts.push(("metadata.allowed-tools".to_owned(), &metadata.allowed_tools));
    }
    for (index, tag) in metadata.tags.iter().enumerate() {
        texts.push((format!("metadata.tags.{index}"), tag));
    }
    for (index, author) in metadata.authors.iter().enumerate() {
        texts.push((format!("metadata.authors.{index}.name"), &author.name));
        texts.push((format!("metadata.authors.{index}.email"), &author.email));
    }
    for (field, text) in texts {
        if let Some(finding) = hidden_text(card::FILE, "card/hidden-text", text) {
            findings.push(subject.place(finding, &field));
        }
    }
}
