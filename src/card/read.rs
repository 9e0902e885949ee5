//! From a YAML tree to a card, noting every field that does not belong and every value of another kind.

use crate::{
    card::{self, Author, Card, Catalog, Dependency, Example, Metadata, Provenance, Read, Spec},
    finding::Finding,
    yaml::{self, Node, Place, Value},
};

pub(super) fn read(bytes: &[u8]) -> Read {
    let mut reader = Reader::default();
    let root = match yaml::parse(bytes, card::MAX_CARD) {
        Err(error) => {
            reader.note("card/yaml", "(root)", error.at, error.message, "correct the YAML");
            None
        }
        Ok(document) => {
            if let Some(at) = document.ignored {
                let remedy = "remove everything from this line on";
                reader.note("card/yaml", "(root)", at, "more than one document; only the first is read", remedy);
                reader.last_is_warning();
            }
            document.root
        }
    };
    let card = match &root {
        Some(node) if matches!(node.value, Value::Mapping(_)) => Some(reader.card(node)),
        Some(node) => {
            reader.kind("(root)", node, "skillcard.SkillCard");
            None
        }
        None if reader.findings.is_empty() => {
            reader.note("card/yaml", "(root)", Place::START, "the file is empty", "delete it, or write a skill card");
            None
        }
        None => None,
    };
    Read { card, root, findings: reader.findings }
}

#[derive(Default)]
struct Reader {
    findings: Vec<Finding>,
}

impl Reader {
    fn card(&mut self, node: &Node) -> Card {
        let mut card = Card { api_version: String::new(), kind: String::new(), ..Card::default() };
        // Which fields there are depends on the version, wherever in the file that stands.
        let v1alpha2 = node.get("apiVersion").and_then(Node::text) == Some(card::V1ALPHA2);
        self.fields("", node, "SkillCard", |reader, key, path, node| {
            match key {
                "apiVersion" => card.api_version = reader.text(path, node),
                "kind" => card.kind = reader.text(path, node),
                "metadata" if v1alpha2 => {
                    (card.metadata, card.catalog) = reader.v1alpha2(path, node);
                }
                "metadata" => card.metadata = reader.metadata(path, node),
                "provenance" if !v1alpha2 => card.provenance = Some(reader.provenance(path, node)),
                "spec" if !v1alpha2 => card.spec = Some(reader.spec(path, node)),
                _ => return false,
            }
            true
        });
        card
    }

    fn metadata(&mut self, path: &str, node: &Node) -> Metadata {
        let mut metadata = Metadata::default();
        self.fields(path, node, "Metadata", |reader, key, path, node| {
            let field = match key {
                "name" => &mut metadata.name,
                "display-name" => &mut metadata.display_name,
                "namespace" => &mut metadata.namespace,
                "version" => &mut metadata.version,
                "description" => &mut metadata.description,
                "license" => &mut metadata.license,
                "compatibility" => &mut metadata.compatibility,
                "allowed-tools" => &mut metadata.allowed_tools,
                _ => return reader.lists(&mut metadata, key, path, node),
            };
            *field = reader.text(path, node);
            true
        });
        metadata
    }

    fn v1alpha2(&mut self, path: &str, node: &Node) -> (Metadata, Catalog) {
        let (mut metadata, mut catalog) = (Metadata::default(), Catalog::default());
        self.fields(path, node, "Metadata", |reader, key, path, node| {
            let field = match key {
                "version" => &mut metadata.version,
                "title" => &mut metadata.display_name,
                "vendor" => &mut catalog.vendor,
                "url" => &mut catalog.url,
                "documentation" => &mut catalog.documentation,
                "support" => &mut catalog.support,
                "changelog" => &mut catalog.changelog,
                "annotations" => {
                    catalog.annotations = reader.annotations(path, node);
                    return true;
                }
                _ => return reader.lists(&mut metadata, key, path, node),
            };
            *field = reader.text(path, node);
            true
        });
        (metadata, catalog)
    }

    fn lists(&mut self, metadata: &mut Metadata, key: &str, path: &str, node: &Node) -> bool {
        match key {
            "tags" => metadata.tags = self.list(path, node, Self::text),
            "authors" => metadata.authors = self.list(path, node, Self::author),
            _ => return false,
        }
        true
    }

    fn annotations(&mut self, path: &str, node: &Node) -> Vec<(String, String)> {
        let mut annotations = Vec::new();
        self.fields(path, node, "Annotations", |reader, key, path, node| {
            annotations.push((key.to_owned(), reader.text(path, node)));
            true
        });
        annotations
    }

    fn author(&mut self, path: &str, node: &Node) -> Author {
        let mut author = Author::default();
        self.texts(path, node, "Author", &mut [("name", &mut author.name), ("email", &mut author.email)]);
        author
    }

    fn provenance(&mut self, path: &str, node: &Node) -> Provenance {
        let mut from = Provenance::default();
        let fields = &mut [("source", &mut from.source), ("commit", &mut from.commit), ("path", &mut from.path)];
        self.texts(path, node, "Provenance", fields);
        from
    }

    fn spec(&mut self, path: &str, node: &Node) -> Spec {
        let mut spec = Spec::default();
        self.fields(path, node, "Spec", |reader, key, path, node| {
            match key {
                "prompt" => spec.prompt = reader.text(path, node),
                "examples" => spec.examples = reader.list(path, node, Self::example),
                "dependencies" => spec.dependencies = reader.list(path, node, Self::dependency),
                _ => return false,
            }
            true
        });
        spec
    }

    fn example(&mut self, path: &str, node: &Node) -> Example {
        let mut example = Example::default();
        self.texts(path, node, "Example", &mut [("input", &mut example.input), ("output", &mut example.output)]);
        example
    }

    fn dependency(&mut self, path: &str, node: &Node) -> Dependency {
        let mut needed = Dependency::default();
        self.texts(path, node, "Dependency", &mut [("name", &mut needed.name), ("version", &mut needed.version)]);
        needed
    }

    fn texts(&mut self, path: &str, node: &Node, kind: &str, fields: &mut [(&str, &mut String)]) {
        self.fields(path, node, kind, |reader, key, path, node| {
            let Some((_, field)) = fields.iter_mut().find(|(name, _)| *name == key) else {
                return false;
            };
            **field = reader.text(path, node);
            true
        });
    }

    /// Hands each entry of a mapping to `take`, and notes those that it does not know.
    fn fields(
        &mut self,
        path: &str,
        node: &Node,
        kind: &str,
        mut take: impl FnMut(&mut Self, &str, &str, &Node) -> bool,
    ) {
        let kind = format!("skillcard.{kind}");
        let entries = match &node.value {
            Value::Mapping(entries) => entries,
            Value::Null => return,
            _ => return self.kind(path, node, &kind),
        };
        for (key, node) in entries {
            let path = if path.is_empty() { key.text.clone() } else { format!("{path}.{}", key.text) };
            if !take(self, &key.text, &path, node) {
                let message = format!("field {} not found in type {kind}", key.text);
                self.note("card/unknown-field", &path, key.at, message, "remove it, or correct its name");
            }
        }
    }

    fn list<T>(&mut self, path: &str, node: &Node, mut item: impl FnMut(&mut Self, &str, &Node) -> T) -> Vec<T> {
        match &node.value {
            Value::Sequence(items) => {
                items.iter().enumerate().map(|(index, node)| item(self, &format!("{path}.{index}"), node)).collect()
            }
            Value::Null => Vec::new(),
            _ => {
                self.kind(path, node, "a list");
                Vec::new()
            }
        }
    }

    fn text(&mut self, path: &str, node: &Node) -> String {
        if node.text().is_none() {
            self.kind(path, node, "string");
        }
        node.text().unwrap_or_default().to_owned()
    }

    fn kind(&mut self, path: &str, node: &Node, wanted: &str) {
        let message = format!("cannot unmarshal {} into {wanted}", node.kind());
        let remedy = match wanted {
            "string" => "write one text",
            "a list" => "write a list, each item after a dash",
            _ => "write fields and values",
        };
        self.note("card/type", path, node.at, message, remedy);
    }

    fn note(&mut self, rule: &'static str, path: &str, at: Place, message: impl Into<String>, remedy: &str) {
        let finding = Finding::error(card::FILE, rule, message).at(at.line, at.column);
        self.findings.push(finding.field(path).remedy(remedy));
    }

    fn last_is_warning(&mut self) {
        if let Some(finding) = self.findings.last_mut() {
            finding.severity = crate::finding::Severity::Warning;
        }
    }
}
