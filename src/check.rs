//! The check of a skill: everything that is wrong with its card and its `SKILL.md`, at once.
//!
//! Pure: the caller has read the files. What agents accept in practice is a warning, and an error when strict.

use crate::{
    card::{self, Card, Origin},
    finding::{Finding, Severity},
    frontmatter::{self, FrontMatter, WordCount},
    yaml::{Node, Value},
};

mod card_rules;
mod skill_rules;

/// What a skill consists of, as far as the check looks at it.
#[derive(Clone, Copy)]
pub struct SkillInput<'a> {
    /// The bytes of `SKILL.md`; the first [`MAX_FRONT_MATTER`](frontmatter::MAX_FRONT_MATTER) and a few suffice for
    /// everything but the number of words.
    pub skill_md: Option<&'a [u8]>,
    /// The bytes of `skill.yaml`.
    pub skill_yaml: Option<&'a [u8]>,
    /// Whether there is a file of that path, relative to the skill.
    pub has_file: &'a dyn Fn(&str) -> bool,
    /// Where the skill comes from, including the name of its directory.
    pub origin: &'a Origin<'a>,
    /// Whether warnings are errors.
    pub strict: bool,
}

impl std::fmt::Debug for SkillInput<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = |bytes: Option<&[u8]>| bytes.map(<[u8]>::len);
        f.debug_struct("SkillInput")
            .field("skill_md", &size(self.skill_md))
            .field("skill_yaml", &size(self.skill_yaml))
            .field("origin", self.origin)
            .field("strict", &self.strict)
            .finish_non_exhaustive()
    }
}

/// What the check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The card, given or derived, as far as it can be understood. Only without errors is it fit for an image.
    pub card: Option<Card>,
    /// The derived card as a file, to be added to a skill that has no `skill.yaml`; only without errors.
    pub generated: Option<String>,
    /// Everything that was found, by file, line and column; errors first where they are several.
    pub findings: Vec<Finding>,
    /// Words of `SKILL.md` below its front matter, as far as it was given.
    pub words: u64,
}

impl Checked {
    /// Returns how many findings stop a build.
    pub fn errors(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error).count()
    }
}

/// Checks a skill.
pub fn check(input: &SkillInput<'_>) -> Checked {
    let mut findings = Vec::new();
    let mut parsed = input.skill_md.map(frontmatter::parse);
    let front = parsed.as_mut().and_then(|parsed| parsed.front.take());
    let read = input.skill_yaml.map(card::read);

    let derives = read.is_none();
    let (mut card, root) = match read {
        Some(read) => {
            findings.extend(read.findings);
            (read.card, read.root)
        }
        None => (front.as_ref().map(|front| Card::derive(front, input.origin)), None),
    };
    if let (Some(card), Some(front)) = (&mut card, &front)
        && card.is_v1alpha2()
    {
        card.complete(front, input.origin);
    }

    let subject = Subject { input, card: card.as_ref(), root: root.as_ref(), front: front.as_ref() };
    let form = parsed.as_ref().map(|parsed| parsed.findings.as_slice());
    findings.extend(skill_rules::findings(&subject, form));
    card_rules::findings(&subject, &mut findings);

    if input.strict {
        findings.iter_mut().for_each(|finding| finding.severity = Severity::Error);
    }
    findings.sort_by(|a, b| key(a).cmp(&key(b)));
    findings.dedup();
    let words = input.skill_md.map(WordCount::of).unwrap_or_default();
    let mut checked = Checked { card, generated: None, findings, words };
    if derives && checked.errors() == 0 {
        checked.generated = checked.card.as_ref().map(Card::to_yaml);
    }
    checked
}

fn key(finding: &Finding) -> impl Ord + '_ {
    let place = (finding.line.unwrap_or(0), finding.column.unwrap_or(0));
    (
        finding.file.as_str(),
        place,
        std::cmp::Reverse(finding.severity),
        finding.field.as_str(),
        finding.rule,
        finding.message.as_str(),
    )
}

/// What the rules look at.
#[derive(Clone, Copy)]
struct Subject<'a> {
    input: &'a SkillInput<'a>,
    card: Option<&'a Card>,
    /// The tree of `skill.yaml`.
    root: Option<&'a Node>,
    front: Option<&'a FrontMatter>,
}

impl<'a> Subject<'a> {
    /// Returns whether the image's metadata come from `skill.yaml` alone, so that `SKILL.md` matters to agents only.
    fn has_own_card(&self) -> bool {
        self.input.skill_yaml.is_some() && self.card.is_none_or(|card| !card.is_v1alpha2())
    }

    fn front_text(&self, field: &str) -> Option<&'a frontmatter::Text> {
        let front = self.front?;
        match field {
            "metadata.name" => front.name.as_ref(),
            "metadata.description" => front.description.as_ref(),
            "metadata.license" => front.license.as_ref(),
            "metadata.compatibility" => front.compatibility.as_ref(),
            "metadata.allowed-tools" => front.allowed_tools.as_ref(),
            "metadata.version" => front.metadata("version"),
            "metadata.namespace" => {
                front.metadata("namespace").or(front.name.as_ref().filter(|name| name.value.contains(':')))
            }
            "metadata.authors.0.name" => front.metadata("author"),
            _ => None,
        }
    }

    /// Puts a finding about a field of the card where the field is written.
    fn place(&self, finding: Finding, field: &str) -> Finding {
        let from_skill_md = !self.has_own_card() && self.card_node(field).is_none();
        let finding = finding.field(field);
        match (from_skill_md.then(|| self.front_text(field)).flatten(), self.root) {
            (Some(text), _) => Finding { file: frontmatter::FILE.into(), ..finding.at(text.at.line, text.at.column) },
            (None, Some(root)) => {
                let at = nearest(root, field).at;
                finding.at(at.line, at.column)
            }
            (None, None) => Finding { file: frontmatter::FILE.into(), ..finding },
        }
    }

    fn card_node(&self, field: &str) -> Option<&'a Node> {
        field.split('.').try_fold(self.root?, step)
    }
}

fn step<'a>(node: &'a Node, part: &str) -> Option<&'a Node> {
    match &node.value {
        Value::Sequence(items) => items.get(part.parse::<usize>().ok()?),
        _ => node.get(part),
    }
}

/// Returns the node of a field, or the innermost one around it when it is missing.
fn nearest<'a>(root: &'a Node, field: &str) -> &'a Node {
    let mut node = root;
    for part in field.split('.') {
        let Some(next) = step(node, part) else {
            break;
        };
        node = next;
    }
    node
}

#[cfg(test)]
mod tests;
