use serde_json::json;

use super::*;
use crate::generate::kube::tests::by_init;
use crate::generate::kube::{PULLER, Style, addition};
use crate::generate::volume::tests::skill;

fn hr() -> Addition {
    addition(&[skill("acme/hr", "hr", Some("1.0.0"))], "/skills", Style::ImageVolume, &[]).unwrap()
}

fn pulled() -> Addition {
    let skills = [skill("quay.io/acme/hr", "hr", Some("1.0.0")), skill("quay.io/acme/legal", "legal", None)];
    by_init(&skills, &["registry"], PULLER).unwrap()
}

/// A pod that is small enough to be seen whole.
fn small() -> Addition {
    let mut hr = hr();
    hr.annotations = [("a/b".to_owned(), json!("c"))].into_iter().collect();
    hr.volumes = vec![json!({"name": "v"})];
    hr.mounts = vec![json!({"mountPath": "/v", "readOnly": true})];
    hr
}

#[test]
fn lines_go_between_lines() {
    let cases = [
        // Keys that are not there come last in their mapping, the deeper ones first.
        (
            "kind: Pod\nmetadata:\n  name: x\nspec:\n  containers:\n  - name: a\n    image: b\n",
            "kind: Pod\nmetadata:\n  name: x\n  annotations:\n    a/b: c\nspec:\n  containers:\n  - name: a\n    image: \
             b\n    volumeMounts:\n      - mountPath: /v\n        readOnly: true\n  volumes:\n    - name: v\n",
        ),
        // Lists that are there get their new items first, at their own indentation; empty values get their first.
        (
            "kind: Pod\nmetadata:\n  annotations: # none\nspec:\n  volumes: # here\n  # old\n  - name: w\n  containers:\n    \
             -   name: a\n        volumeMounts:\n        # c\n        -\n          name: w\n# end\n",
            "kind: Pod\nmetadata:\n  annotations: # none\n    a/b: c\nspec:\n  volumes: # here\n  - name: v\n  # old\n  - \
             name: w\n  containers:\n    -   name: a\n        volumeMounts:\n        - mountPath: /v\n          readOnly: \
             true\n        # c\n        -\n          name: w\n# end\n",
        ),
        // Brackets.
        (
            "{\"kind\": \"Pod\", \"spec\": {\"volumes\": [], \"containers\": [{\"name\": \"a\", \"volumeMounts\": [ {} ]}]}}",
            "{\"metadata\": {\"annotations\": {\"a/b\": \"c\"}}, \"kind\": \"Pod\", \"spec\": {\"volumes\": [{\"name\": \
             \"v\"}], \"containers\": [{\"name\": \"a\", \"volumeMounts\": [{\"mountPath\": \"/v\", \"readOnly\": true},  {} \
             ]}]}}",
        ),
        // What goes on further left than its key, and the characters of a pair of escapes.
        (
            "kind: Pod\nmetadata:\n  annotations: {\n  }\nspec:\n  containers:\n  - args: [\n    é, \"b\nc\"\n  ]\n    name: a\n  volumes: [\n]\n",
            "kind: Pod\nmetadata:\n  annotations: {\"a/b\": \"c\"\n  }\nspec:\n  containers:\n  - args: [\n    é, \"b\nc\"\n  ]\n    name: a\n    volumeMounts:\n      - mountPath: /v\n        readOnly: true\n  volumes: [{\"name\": \"v\"}\n]\n",
        ),
        (
            "kind: Pod\nspec:\n  containers:\n  - name: a\n    args: [\n  b\n  ]\n---\ndata: {\n}\n",
            "kind: Pod\nspec:\n  containers:\n  - name: a\n    args: [\n  b\n  ]\n    volumeMounts:\n      - mountPath: /v\n        readOnly: true\n  volumes:\n    - name: v\nmetadata:\n  annotations:\n    a/b: c\n---\ndata: {\n}\n",
        ),
        (
            "{\"kind\": \"Pod\", \"metadata\": {\"annotations\": {\"x\": \"\\ud83d\\ude00\"}}, \"spec\": {\"containers\": [{}]}}",
            "{\"kind\": \"Pod\", \"metadata\": {\"annotations\": {\"a/b\": \"c\", \"x\": \"\\ud83d\\ude00\"}}, \"spec\": {\"volumes\": [{\"name\": \"v\"}], \"containers\": [{\"volumeMounts\": [{\"mountPath\": \"/v\", \"readOnly\": true}]}]}}",
        ),
        // A block of text whose last line is only spaces, or that has none.
        (
            "kind: Pod\nspec:\n  containers:\n  - name: a\n    args:\n    - |\n      echo\n        \n",
            "kind: Pod\nspec:\n  containers:\n  - name: a\n    args:\n    - |\n      echo\n        \n    volumeMounts:\n      - mountPath: /v\n        readOnly: true\n  volumes:\n    - name: v\nmetadata:\n  annotations:\n    a/b: c\n",
        ),
        (
            "kind: Pod\nspec:\n  containers:\n  - name: a\n    args:\n    - |\n  hostname: b\n",
            "kind: Pod\nspec:\n  containers:\n  - name: a\n    args:\n    - |\n    volumeMounts:\n      - mountPath: /v\n        readOnly: true\n  hostname: b\n  volumes:\n    - name: v\nmetadata:\n  annotations:\n    a/b: c\n",
        ),
        // No line end at the end, and others than usual.
        (
            "spec:\r\n  containers: [{name: é}]\r\n  volumes: []\r\nkind: Pod\r\nmetadata: {}",
            "spec:\r\n  containers: [{\"volumeMounts\": [{\"mountPath\": \"/v\", \"readOnly\": true}], name: é}]\r\n  \
             volumes: [{\"name\": \"v\"}]\r\nkind: Pod\r\nmetadata: {\"annotations\": {\"a/b\": \"c\"}}",
        ),
        (
            "kind: Pod\nspec:\n  containers:\n  - name: a",
            "kind: Pod\nspec:\n  containers:\n  - name: a\n    volumeMounts:\n      - mountPath: /v\n        readOnly: \
             true\n  volumes:\n    - name: v\nmetadata:\n  annotations:\n    a/b: c",
        ),
    ];
    for (before, after) in cases {
        assert_eq!(inject(before, &small(), Choice::default()).unwrap(), after);
    }
}

/// Every kind of workload around every style of a pod's spec.
fn manifests() -> Vec<String> {
    const SPECS: [&str; 23] = [
        "containers:\n- name: agent\n  image: a\n",
        "containers:\n  - name: agent\n    image: a\nrestartPolicy: Never\n",
        "# top\ncontainers: # c\n\n  # one\n  - image: a # i\n    name: agent\n\n\n# end\n",
        "containers:\n- name: agent\nvolumes: []\ninitContainers: [ ]\nimagePullSecrets: [{name: other}]\n",
        "containers:\n- name: agent\n  volumeMounts: []\n",
        "containers:\n- name: agent\n  volumeMounts: [{name: w, mountPath: /w}]\nvolumes: [{name: w, emptyDir: {}}]\n",
        "containers:\n- name: agent\n  volumeMounts:\n  - name: w\n    mountPath: /w\nvolumes:\n- name: w\n  emptyDir: {}\n",
        "volumes:\n   - name: w\n     emptyDir: {}\ncontainers:\n   - volumeMounts:\n        - {name: w, mountPath: /w}\n     name: agent\n",
        "initContainers:\n- name: first\n  command:\n  - sh\n  - -c\n  - |\n    echo a\n\n    echo b\n\ncontainers:\n- name: agent\n  args:\n  - |+\n    text\n\n\n",
        "containers:\n- name: agent\n  args: [a,\n    b]\n  env: &env\n  - name: A\n    value: 'x\n\n      y'\n- name: other\n  env: *env\n",
        "containers:\n- &c\n  name: agent\n  command: [\"a\", 'b']\n",
        "containers: [{name: agent, image: a}, {name: other}]\n",
        "{containers: [{name: agent}], volumes: []}\n",
        "containers:\n- name: agent\n  args:\t# tab\n  - >-\n    folded\n    text\n  # after\n",
        "volumes:\ncontainers:\n- name: agent\n  volumeMounts: # none\n  image: a\n",
        "? containers\n: - name: agent\nhostname: 日本\n",
        "containers:\n- name: agent\n  image: \"a\n    b\"\n  workingDir: a plain\n    text\n",
        "containers:\n- name: agent\n  env:\n  - {name: A, value: \"[\"}\n  - name: B\n    value:\nhostAliases:\n",
        "\"containers\":\n- 'name': agent\n  !!str image: a\n",
        "containers:\n- name: agent\n  args: [\n    a,\n  ]\n  env: [\n{\nname: A\n}\n]\nhostname: 'a\nb'\n",
        "containers:\n- name: agent\n  args:\n  - |\n    echo\n      \n",
        "containers:\n- name: agent\n  args:\n  - >-\n    echo\n\n     \n\nhostname: a\n",
        "containers:\n- name: agent\n  args:\n  - |\n  - |+\n    a\n     \n\n",
    ];
    let mut manifests = Vec::new();
    for spec in SPECS {
        let indented = |by: usize| {
            let indent = " ".repeat(by);
            spec.lines().map(|l| if l.is_empty() { "\n".into() } else { format!("{indent}{l}\n") }).collect::<String>()
        };
        manifests.push(format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n{}", indented(2)));
        manifests.push(format!("spec:\n{}kind: Pod\nmetadata: {{name: x}}\n...\n", indented(4)));
        for kind in ["Deployment", "StatefulSet", "Job"] {
            manifests.push(format!(
                "# {kind}\n---\nkind: Service\nspec:\n  ports: [*nobody]\n---\nkind: {kind}\nmetadata:\n  name: x\nspec:\n  \
                 template:\n    metadata:\n      labels:\n        app: x\n    spec:\n{}  replicas: 1\n---\nkind: ConfigMap\ndata: \
                 {{}}\n",
                indented(6)
            ).replace("*nobody", "1"));
        }
        manifests.push(format!(
            "kind: CronJob\nspec:\n  schedule: '* * * * *'\n  jobTemplate:\n    spec:\n      template:\n        spec:\n{}",
            indented(10)
        ));
    }
    manifests
}

#[test]
fn nothing_else_changes() {
    let agent = Choice { container: Some("agent"), ..Choice::default() };
    let mut refused = 0;
    for manifest in manifests() {
        let crlf = manifest.replace('\n', "\r\n");
        let open = manifest.trim_end_matches(['\n', '.']).to_owned();
        for text in [manifest.clone(), format!("\u{feff}{manifest}"), crlf, open] {
            for addition in [hr(), pulled()] {
                // What is inserted makes what is meant: `edits` has read the result and compared it, or refused.
                let edits = match edits(&text, &addition, agent) {
                    Ok(edits) => edits,
                    Err(e) => {
                        assert!(text.contains("? containers"), "{e}\n{text}");
                        refused += 1;
                        continue;
                    }
                };
                let result = apply(&text, &edits);
                let mut rest = result.as_str();
                let mut kept = String::new();
                let mut from = 0;
                for edit in &edits {
                    kept += &rest[..edit.at - from];
                    rest = rest[edit.at - from..].strip_prefix(&edit.text).unwrap();
                    from = edit.at;
                }
                assert_eq!(kept + rest, text);
                assert_eq!(result.len(), text.len() + edits.iter().map(|edit| edit.text.len()).sum::<usize>());
                let breaks = |text: &str| (text.matches("\r\n").count(), text.matches('\n').count());
                if text.contains("\r\n") {
                    assert_eq!(breaks(&result).0, breaks(&result).1, "{result:?}");
                }
                // Once more is refused: the names are taken.
                assert!(inject(&result, &addition, agent).unwrap_err().to_string().contains("is there already"));
            }
        }
    }
    assert_eq!(refused, 48);
}

#[test]
fn what_leaves_no_place_is_refused_with_its_line() {
    let cases = [
        ("kind: Service\n", "there is nothing with a pod in it"),
        ("kind: Deployment\n", "line 1: it has no pod template"),
        ("kind: Pod\nspec: {}\n", "line 1: the pod has no list of containers"),
        ("kind: Pod\nspec:\n  containers:\n  - name: a\n  - name: b\n", "there are several containers: a, b"),
        ("kind: Pod\nspec:\n  containers:\n  - name: a\n  volumes: ~\n", "line 5: volumes is in the way"),
        ("kind: Pod\nspec:\n  containers:\n  - name: a\n  volumes: x\n", "line 5: volumes is in the way"),
        (
            "kind: Pod\nspec:\n  containers:\n  - name: a\n  volumes:\n  - name: skill-hr\n",
            "line 6: name skill-hr is there already",
        ),
        (
            "kind: Pod\nspec:\n  containers:\n  - name: a\n    volumeMounts:\n    - mountPath: /skills/hr\n",
            "line 6: mountPath /skills/hr is there already",
        ),
        (
            "kind: Pod\nspec:\n  containers:\n  - name: a\n    volumeMounts: [{mountPath: /skills//hr/}]\n",
            "line 5: mountPath /skills//hr/ is there already",
        ),
        (
            "kind: Pod\nx: &v {name: skill-hr}\nspec:\n  containers:\n  - name: a\n  volumes:\n  - *v\n",
            "line 7: this is an alias, behind which a name may be that is taken",
        ),
        (
            "kind: Pod\nx: &v {name: skill-hr}\nspec:\n  containers:\n  - name: a\n  volumes:\n  - <<: *v\n",
            "line 7: this is an alias, behind which a name may be",
        ),
        (
            "kind: Pod\nx: &p /skills/hr\nspec:\n  containers:\n  - name: a\n    volumeMounts: [{mountPath: *p}]\n",
            "line 6: this is an alias, behind which a mountPath may be",
        ),
        ("kind: Pod\nx: &l []\nspec:\n  containers:\n  - name: a\n  volumes: *l\n", "line 6: this is an alias"),
        (
            "kind: Pod\nspec:\n  containers:\n  - name: a\n  volumes: &l []\nx: *l\n",
            "line 5: this is repeated elsewhere",
        ),
        ("kind: Pod\nx: &c {name: a}\nspec:\n  containers:\n  - <<: *c\n", "line 5: volumeMounts would hide"),
        ("kind: Pod\nkind: Pod\n", "line 2: the key \"kind\" is there twice"),
        ("kind: Pod\rspec: x\n", "line 1: a carriage return without a line feed"),
        ("kind: Pod\nspec:\n\tcontainers: []\n", "line 3: "),
        ("kind: {{ .Values.kind }}\n", ""),
        (
            "kind: Pod\nmetadata: {name: a}\n---\nkind: Job\nmetadata: {name: b}\n",
            "there are several workloads: Pod/a, Job/b",
        ),
    ];
    for (manifest, want) in cases {
        let error = inject(manifest, &hr(), Choice::default()).unwrap_err().to_string();
        assert!(error.contains(want), "{manifest}: {error}");
    }
}

#[test]
fn one_of_several_is_chosen() {
    let pod =
        |name: &str| format!("kind: Pod\nmetadata:\n  name: {name}\nspec:\n  containers: [{{name: a}}, {{name: b}}]\n");
    let text = format!("{}---\n{}", pod("one"), pod("two"));
    let choice = Choice { workload: Some("pod/two"), container: Some("b") };
    let result = inject(&text, &hr(), choice).unwrap();
    assert!(result.starts_with(&pod("one")), "{result}");
    assert!(result.contains("containers: [{name: a}, {\"volumeMounts\": [{"), "{result}");
    for (workload, container, want) in [
        (Some("pod/three"), None, "there is no pod/three"),
        (Some("pod/one"), Some("c"), "there is no container \"c\""),
    ] {
        assert!(inject(&text, &hr(), Choice { workload, container }).unwrap_err().to_string().contains(want));
    }
}

#[test]
fn namespaces_choose_among_equals() {
    let job = |namespace: &str| {
        let spec = "spec: {template: {spec: {containers: [{name: a}]}}}";
        format!("kind: Job\nmetadata: {{name: x{namespace}}}\n{spec}\n")
    };
    let text = [job(", namespace: one"), job(", namespace: two"), job("")].join("---\n");
    let lines = |wanted: &str| {
        let result = inject(&text, &hr(), Choice { workload: Some(wanted), container: None });
        result.map(|result| result.lines().position(|line| line.contains("/skills/hr")).unwrap())
    };
    for (wanted, line) in [("one/Job/x", 2), ("two/job/x", 6), ("Job/x", 10)] {
        assert_eq!(lines(wanted).unwrap(), line, "{wanted}");
    }
    assert_eq!(lines("three/Job/x").unwrap_err().to_string(), "there is no three/Job/x");
    let all = inject(&text, &hr(), Choice::default()).unwrap_err().to_string();
    assert_eq!(all, "there are several workloads: one/Job/x, two/Job/x, Job/x");
}

#[test]
fn init_containers_are_not_root() {
    let cases = [
        ("", false),
        ("  securityContext: {runAsUser: 0}\n", true),
        ("  securityContext: {runAsUser: 1000}\n", false),
        ("  securityContext: {runAsUser: *zero}\n", true),
        ("  securityContext: *root\n", true),
    ];
    for (security, root) in cases {
        let text = format!(
            "x: [&zero 0, &root {{runAsUser: 0}}]\nkind: Pod\nspec:\n{security}  containers:\n  - {{name: a, securityContext: {{runAsUser: 0}}}}\n"
        );
        let result = inject(&text, &pulled(), Choice::default()).unwrap();
        assert_eq!(result.matches("runAsUser: 1001\n").count(), usize::from(root), "{result}");
        assert!(result.contains("          type: RuntimeDefault\n        runAsNonRoot: true\n"), "{result}");
    }
}

#[test]
fn more_can_be_pulled_later() {
    let text = "kind: Pod\nspec:\n  volumes: [{name: skills}]\n  containers: [{name: pull-skills}]\n";
    let once = inject(text, &pulled(), Choice::default()).unwrap();
    let again = inject(&once, &pulled(), Choice::default()).unwrap_err().to_string();
    assert_eq!(again, "line 4: mountPath /skills/hr is there already");
    let other = by_init(&[skill("quay.io/acme/it", "it", None)], &["registry"], PULLER).unwrap();
    let twice = inject(&once, &other, Choice::default()).unwrap();
    for name in ["skillctl-pull", "skillctl-pull-2", "skillctl-skills", "skillctl-skills-2", "skillctl-auth-2"] {
        assert!(
            twice.contains(&format!("name: {name}\n")) || twice.contains(&format!("\"name\": \"{name}\"")),
            "{name}: {twice}"
        );
    }
}

#[test]
fn secrets_that_are_there_are_not_named_twice() {
    let text = "kind: Pod\nspec:\n  containers: [{name: a}]\n  imagePullSecrets:\n  - name: registry\n";
    assert_eq!(inject(text, &pulled(), Choice::default()).unwrap().matches("- name: registry\n").count(), 1);
    let first = "kind: Pod\nspec:\n  initContainers:\n  - name: own\n  containers: [{name: a}]\n";
    let result = inject(first, &pulled(), Choice::default()).unwrap();
    assert!(result.find("name: skillctl-pull").unwrap() < result.find("name: own").unwrap(), "{result}");
}
