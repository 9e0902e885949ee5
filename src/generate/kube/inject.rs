//! Put skills into a manifest that is there, as text: every byte of it stays.
//!
//! What is inserted is lines between lines in block style, and JSON after an opening bracket in flow style. Then the result
//! is read again: unless it is what was there with what was to be added, and nothing else, it is refused. So a style that
//! nobody thought of ends in an error and not in another manifest.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::Addition;
pub use super::document::MAX_BYTES;
use super::document::{Kind, Node, Stream, line, parse, refused};
use super::plain::Plain;
use crate::card::emit;
use crate::error::{Error, Result};

/// Where each kind of workload has its pods.
const KINDS: [(&str, &[&str]); 8] = [
    ("Pod", &[]),
    ("Deployment", &["spec", "template"]),
    ("StatefulSet", &["spec", "template"]),
    ("DaemonSet", &["spec", "template"]),
    ("ReplicaSet", &["spec", "template"]),
    ("ReplicationController", &["spec", "template"]),
    ("Job", &["spec", "template"]),
    ("CronJob", &["spec", "jobTemplate", "spec", "template"]),
];

/// What is chosen where there are several.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice<'a> {
    /// `KIND/NAME` of the workload, or `NAMESPACE/KIND/NAME`.
    pub workload: Option<&'a str>,
    /// Name of the container.
    pub container: Option<&'a str>,
}

/// Text and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The byte before which it is inserted.
    pub at: usize,
    /// It.
    pub text: String,
    /// How far its lines are indented; at one place the deeper go first.
    indent: usize,
}

/// Returns the manifest with skills in it.
///
/// # Errors
/// If there is no workload or container to choose, a name is taken, or the manifest is written in a way that leaves no place.
pub fn inject(manifest: &str, addition: &Addition, choice: Choice<'_>) -> Result<String> {
    Ok(apply(manifest, &edits(manifest, addition, choice)?))
}

/// Returns what is to be inserted, in order, after having seen that it makes what is meant.
///
/// # Errors
/// As [`inject`].
pub fn edits(manifest: &str, addition: &Addition, choice: Choice<'_>) -> Result<Vec<Edit>> {
    if manifest.len() > MAX_BYTES {
        return Err(refused(1, &format!("the manifest has more than {MAX_BYTES} bytes")));
    }
    let mark = manifest.len() - manifest.trim_start_matches('\u{feff}').len();
    let text = &manifest[mark..];
    // YAML ends lines there, too; what is inserted would have to, and nobody writes that.
    if let Some(at) = text.replace("\r\n", "\n\n").find('\r') {
        return Err(refused(line(text, at), "a carriage return without a line feed"));
    }
    let stream = parse(text)?;
    let (number, path) = workload(&stream, choice.workload)?;
    let document = &stream.documents[number];
    let template = document.at(path).ok_or_else(|| refused(line(text, document.start), "it has no pod template"))?;
    let container = container(text, template, choice.container)?;
    let addition = &fitted(addition, document, template);
    check_free(text, template, container, addition)?;
    let present: Vec<&str> = list(template, "imagePullSecrets").iter().filter_map(|s| s.text_at("name")).collect();
    let secrets: Vec<String> =
        addition.secrets.iter().filter(|name| !present.contains(&name.as_str())).cloned().collect();

    let mut to_pod = Map::new();
    let metadata = addition.metadata();
    if !metadata.is_empty() {
        to_pod.insert("metadata".into(), metadata.into());
    }
    to_pod.insert("spec".into(), addition.lists(&secrets).into());
    let to_container: Map<String, Value> =
        [("volumeMounts".to_owned(), Value::Array(addition.mounts.clone()))].into_iter().collect();

    let mut editor = Editor { text, aliased: &stream, edits: Vec::new() };
    editor.unshared(document, path, container)?;
    editor.merge(template, &to_pod)?;
    let node = &list(template, "containers")[container];
    editor.merge(node, &to_container)?;
    let mut edits = editor.edits;
    edits.sort_by(|one, other| one.at.cmp(&other.at).then(other.indent.cmp(&one.indent)));
    let edits: Vec<Edit> = finish(text, edits);
    verify(text, &edits, &stream, (number, path, container), (&to_pod, &to_container))?;
    Ok(edits.into_iter().map(|edit| Edit { at: edit.at + mark, ..edit }).collect())
}

/// Inserts.
pub fn apply(text: &str, edits: &[Edit]) -> String {
    let mut out = String::with_capacity(text.len() + edits.iter().map(|edit| edit.text.len()).sum::<usize>());
    let mut from = 0;
    for edit in edits {
        out += &text[from..edit.at];
        out += &edit.text;
        from = edit.at;
    }
    out + &text[from..]
}

fn list<'a>(template: &'a Node, key: &str) -> &'a [Node] {
    template.at(&["spec", key]).map_or(&[], Node::items)
}

/// Finds the document with the workload, and where in it the pods are.
fn workload(stream: &Stream, wanted: Option<&str>) -> Result<(usize, &'static [&'static str])> {
    let mut found = Vec::new();
    for (number, document) in stream.documents.iter().enumerate() {
        let kind = document.text_at("kind").unwrap_or_default();
        let metadata = |key| document.at(&["metadata", key]).and_then(Node::text).filter(|text| !text.is_empty());
        let name = format!("{kind}/{}", metadata("name").unwrap_or_default());
        let full = metadata("namespace").map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"));
        let is = |own: &String| wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(own));
        if let Some((_, path)) = KINDS.iter().find(|(own, _)| *own == kind)
            && (is(&name) || is(&full))
        {
            found.push((number, *path, full));
        }
    }
    // One without a namespace beside others of its name.
    let whole = |full: &String| wanted.is_some_and(|wanted| wanted.eq_ignore_ascii_case(full));
    if found.iter().filter(|(_, _, full)| whole(full)).count() == 1 {
        found.retain(|(_, _, full)| whole(full));
    }
    let names = |found: &[(usize, &[&str], String)]| found.iter().map(|f| f.2.clone()).collect::<Vec<_>>().join(", ");
    let (reason, hint) = match (&found[..], wanted) {
        ([one], _) => return Ok((one.0, one.1)),
        ([], Some(wanted)) => (format!("there is no {wanted}"), None),
        ([], None) => {
            let kinds = KINDS.map(|(kind, _)| kind).join(", ");
            (format!("there is nothing with a pod in it ({kinds})"), None)
        }
        (several, _) => (
            format!("there are several workloads: {}", names(several)),
            Some("--workload [NAMESPACE/]KIND/NAME chooses one".into()),
        ),
    };
    Err(Error::Unavailable { reason, hint })
}

/// Finds the container that gets the skills.
fn container(text: &str, template: &Node, wanted: Option<&str>) -> Result<usize> {
    let containers = list(template, "containers");
    let names: Vec<&str> = containers.iter().map(|c| c.text_at("name").unwrap_or_default()).collect();
    let (reason, hint) = match (wanted, &names[..]) {
        (_, []) => return Err(refused(line(text, template.start), "the pod has no list of containers")),
        (None, [_]) => return Ok(0),
        (None, names) => {
            (format!("there are several containers: {}", names.join(", ")), Some("--container NAME chooses one".into()))
        }
        (Some(wanted), names) => match names.iter().position(|name| *name == wanted) {
            Some(at) => return Ok(at),
            None => (format!("there is no container {wanted:?}: there is {}", names.join(", ")), None),
        },
    };
    Err(Error::Unavailable { reason, hint })
}

/// Returns what is added to this pod in particular.
fn fitted(addition: &Addition, document: &Node, template: &Node) -> Addition {
    let lists = ["volumes", "initContainers", "containers"].map(|key| list(template, key));
    let taken: HashSet<&str> = lists.into_iter().flatten().filter_map(|node| node.text_at("name")).collect();
    let addition = addition.beside(&taken);
    let user = ["spec", "securityContext", "runAsUser"]
        .iter()
        .try_fold(template, |node, key| followed(document, node)?.get(key))
        .and_then(|node| followed(document, node)?.text());
    match user.and_then(|user| user.parse::<u64>().ok()) {
        Some(0) => addition.not_as_root(),
        _ => addition,
    }
}

/// Returns what an alias stands for; anything else is itself.
fn followed<'a>(document: &'a Node, node: &'a Node) -> Option<&'a Node> {
    fn anchored(node: &Node, anchor: usize) -> Option<&Node> {
        if node.anchor == anchor {
            return Some(node);
        }
        let pairs = node.entries().iter().flat_map(|(key, value)| [key, value]);
        pairs.chain(node.items()).find_map(|node| anchored(node, anchor))
    }
    match node.kind {
        Kind::Alias(of) => anchored(document, of),
        _ => Some(node),
    }
}

/// Refuses to add what is there: two volumes of one name are an error only when the manifest is applied.
fn check_free(text: &str, template: &Node, container: usize, addition: &Addition) -> Result<()> {
    // What a container sees of a path.
    let plain = |path: &str| path.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/");
    let taken = |nodes: &[Node], key: &str, added: &[Value]| -> Result<()> {
        for node in nodes.iter().filter(|_| !added.is_empty()) {
            let merged = node.get(key).is_none() && node.get("<<").is_some();
            let alias = |node: &Node| matches!(node.kind, Kind::Alias(_));
            if merged || alias(node) || node.get(key).is_some_and(alias) {
                let what = format!("this is an alias, behind which a {key} may be that is taken");
                return Err(refused(line(text, node.start), &what));
            }
            let have = node.text_at(key).unwrap_or_default();
            if added.iter().any(|value| value[key].as_str().is_some_and(|added| plain(added) == plain(have))) {
                return Err(refused(line(text, node.start), &format!("{key} {have} is there already")));
            }
        }
        Ok(())
    };
    taken(list(template, "volumes"), "name", &addition.volumes)?;
    taken(list(template, "initContainers"), "name", &addition.init_containers)?;
    taken(list(template, "containers"), "name", &addition.init_containers)?;
    let mounts = list(template, "containers").get(container).and_then(|node| node.get("volumeMounts"));
    taken(mounts.map_or(&[], Node::items), "mountPath", &addition.mounts)?;
    for (key, _) in template.at(&["metadata", "annotations"]).map_or(&[][..], Node::entries) {
        let have = key.text().unwrap_or_default();
        if addition.annotations.contains_key(have) {
            return Err(refused(line(text, key.start), &format!("the annotation {have} is there already")));
        }
    }
    Ok(())
}

struct Editor<'a> {
    text: &'a str,
    aliased: &'a Stream,
    edits: Vec<Edit>,
}

impl Editor<'_> {
    fn refused(&self, node: &Node, what: &str) -> Error {
        refused(line(self.text, node.start), what)
    }

    /// Refuses to change what an alias repeats elsewhere.
    fn unshared(&self, document: &Node, path: &[&str], container: usize) -> Result<()> {
        let mut node = document;
        self.check(node)?;
        for key in path.iter().chain(&["spec", "containers"]) {
            let Some(next) = node.get(key) else { return Ok(()) };
            node = next;
            self.check(node)?;
        }
        node.items().get(container).map_or(Ok(()), |node| self.check(node))
    }

    fn check(&self, node: &Node) -> Result<()> {
        if node.anchor != 0 && self.aliased.aliased.contains(&node.anchor) {
            return Err(self.refused(node, "this is repeated elsewhere by an alias, which would change, too"));
        }
        match node.kind {
            Kind::Alias(_) => Err(self.refused(node, "this is an alias: what it stands for would change, too")),
            _ => Ok(()),
        }
    }

    /// Adds entries to a mapping: to the values of keys that are there, and else new keys at its end.
    fn merge(&mut self, node: &Node, addition: &Map<String, Value>) -> Result<()> {
        self.check(node)?;
        let Kind::Mapping { flow, entries } = &node.kind else {
            return Err(self.refused(node, "a mapping is expected here"));
        };
        let mut missing = Map::new();
        for (key, value) in addition {
            match entries.iter().find(|(have, _)| have.text() == Some(key)) {
                Some((have, there)) => self.extend(node, have, there, value)?,
                None => drop(missing.insert(key.clone(), value.clone())),
            }
        }
        let missing: Map<String, Value> = missing
            .into_iter()
            .filter(|(_, value)| value.as_object().is_none_or(|object| !object.is_empty()))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if entries.iter().any(|(key, _)| key.text() == Some("<<")) {
            let keys = missing.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(self.refused(node, &format!("{keys} would hide what is merged into this with '<<'")));
        }
        match entries.first() {
            _ if *flow => {
                let text = missing.iter().map(|(key, value)| format!("{}: {}", Value::from(&**key), json(value)));
                self.after_bracket(node, text.collect::<Vec<_>>().join(", "), entries.is_empty())
            }
            Some((first, _)) => {
                let indent = first.column;
                self.below(node.end, emit::block(&missing.into(), indent), indent);
                Ok(())
            }
            None => Err(self.refused(node, "there is no place for more here")),
        }
    }

    /// Adds to the value of a key.
    fn extend(&mut self, parent: &Node, key: &Node, there: &Node, value: &Value) -> Result<()> {
        self.check(there)?;
        if there.is_absent() && !matches!(parent.kind, Kind::Mapping { flow: true, .. }) {
            let indent = key.column + 2;
            self.below(key.end, emit::block(value, indent), indent);
            return Ok(());
        }
        match (value, &there.kind) {
            (Value::Object(entries), Kind::Mapping { .. }) => self.merge(there, entries),
            (Value::Array(added), Kind::Sequence { flow: true, items }) => {
                let text = added.iter().map(json).collect::<Vec<_>>().join(", ");
                self.after_bracket(there, text, items.is_empty())
            }
            (Value::Array(_), Kind::Sequence { flow: false, .. }) => {
                let indent = self.dash(key, there)?;
                self.below(key.end, emit::block(value, indent), indent);
                Ok(())
            }
            _ => Err(self.refused(there, &format!("{} is in the way", key.text().unwrap_or_default()))),
        }
    }

    /// Returns the column of the first dash of a list, which stands on the first line below its key with anything on it.
    fn dash(&self, key: &Node, list: &Node) -> Result<usize> {
        let from = line_end(self.text, key.end);
        for line in self.text[from..].lines() {
            let rest = line.trim_start_matches(' ');
            match rest.trim_start() {
                "" => {}
                comment if comment.starts_with('#') => {}
                item if item == "-" || item.starts_with("- ") || item.starts_with("-\t") => {
                    return Ok(line.len() - rest.len());
                }
                _ => break,
            }
        }
        Err(self.refused(list, "this list has no place for more"))
    }

    /// Inserts lines after the line of a byte.
    fn below(&mut self, end: usize, text: String, indent: usize) {
        self.edits.push(Edit { at: line_end(self.text, end), text, indent });
    }

    /// Inserts the first elements of a collection in brackets.
    fn after_bracket(&mut self, node: &Node, text: String, empty: bool) -> Result<()> {
        let open = self.text[node.start..].find(['[', '{']).map(|at| node.start + at + 1);
        let at = open.ok_or_else(|| self.refused(node, "there is no bracket"))?;
        self.edits.push(Edit { at, text: if empty { text } else { text + ", " }, indent: 0 });
        Ok(())
    }
}

/// Returns where the line after that of a byte begins.
fn line_end(text: &str, from: usize) -> usize {
    text[from..].find('\n').map_or(text.len(), |at| from + at + 1)
}

/// Returns JSON with spaces, without which old readers of YAML take `"a":"b"` for one text.
fn json(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{}: {}", Value::from(&**key), json(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// Gives the lines the line ends of the file, and a last line without one the end that it lacks.
fn finish(text: &str, edits: Vec<Edit>) -> Vec<Edit> {
    let ending = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let open = !text.is_empty() && !text.ends_with('\n');
    let mut done: Vec<Edit> = Vec::new();
    for mut edit in edits {
        let lines = edit.text.ends_with('\n');
        if lines && edit.at == text.len() && open {
            edit.text = format!("\n{}", edit.text.trim_end_matches('\n'));
        }
        edit.text = edit.text.replace('\n', ending);
        match done.last_mut() {
            Some(last) if last.at == edit.at => last.text += &edit.text,
            _ => done.push(edit),
        }
    }
    done
}

/// Reads the result and compares it with what was there and what was added to it.
fn verify(
    text: &str,
    edits: &[Edit],
    before: &Stream,
    (number, path, container): (usize, &[&str], usize),
    (to_pod, to_container): (&Map<String, Value>, &Map<String, Value>),
) -> Result<()> {
    let after = parse(&apply(text, edits))?;
    let mut expected: Vec<Plain> = before.documents.iter().map(Plain::of).collect();
    let seen: Vec<Plain> = after.documents.iter().map(Plain::of).collect();
    let template = path.iter().try_fold(&mut expected[number], |plain, key| plain.get(key));
    if let Some(template) = template {
        let node = template.get("spec").and_then(|spec| spec.get("containers")).and_then(|list| list.item(container));
        if let Some(node) = node {
            node.merge(&Plain::value(&to_container.clone().into()));
        }
        template.merge(&Plain::value(&to_pod.clone().into()));
    }
    match expected == seen {
        true => Ok(()),
        false => Err(refused(
            line(text, before.documents[number].start),
            "this manifest is written in a way that has no place for more",
        )),
    }
}

#[cfg(test)]
#[path = "inject_tests.rs"]
mod tests;
