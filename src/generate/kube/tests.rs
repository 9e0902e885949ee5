use super::*;
use crate::generate::volume::tests::skill;

fn skills() -> [Skill; 2] {
    [skill("quay.io/acme/hr", "hr", Some("1.0.0")), skill("acme/legal", "legal", None)]
}

fn by_init() -> Style<'static> {
    Style::InitContainer { puller: PULLER, size_limit: "64Mi" }
}

#[test]
fn a_pod_has_its_skills_by_digest() {
    let addition = addition(&skills(), "/skills", Style::ImageVolume, &[]).unwrap();
    let digest = skills()[0].digest().to_owned();
    let want = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: agent\n  annotations:\n    tag.skillimage.io/skill-hr: \
         quay.io/acme/hr:1.0.0\nspec:\n  containers:\n    - name: agent\n      image: quay.io/acme/agent:2\n      \
         volumeMounts:\n        - name: skill-hr\n          mountPath: /skills/hr\n          readOnly: true\n        - name: \
         skill-legal\n          mountPath: /skills/legal\n          readOnly: true\n  volumes:\n    - name: skill-hr\n      \
         image:\n        reference: quay.io/acme/hr@{digest}\n        pullPolicy: IfNotPresent\n    - name: skill-legal\n      \
         image:\n        reference: localhost/acme/legal@{digest}\n        pullPolicy: Never\n"
    );
    assert_eq!(yaml(&pod("agent", "quay.io/acme/agent:2", &addition)), want);
}

#[test]
fn names_fit() {
    let long = "x".repeat(64);
    let one = addition(&[skill("a.b/c", &long, Some("1"))], "/skills", Style::ImageVolume, &[]).unwrap();
    let name = one.volumes[0]["name"].as_str().unwrap();
    assert!(name.len() <= 63 && name.starts_with("skill-xxx"), "{name}");
    assert_eq!(one.annotations.keys().collect::<Vec<_>>(), [&format!("tag.skillimage.io/{name}")]);
    assert_eq!(one.mounts[0]["mountPath"], format!("/skills/{long}"));
}

#[test]
fn init_containers_pull_by_digest_with_the_secret_of_the_registry() {
    let skills = [
        skill("quay.io/acme/hr", "hr", Some("1.0.0")),
        skill("quay.io/acme/it", "it", None),
        skill("registry.example:5000/acme/legal", "legal", None),
    ];
    let secrets = ["other", "registry.example:5000=own"].map(|text| PullSecret::parse(text).unwrap());
    let addition = addition(&skills, "/skills", by_init(), &secrets).unwrap();
    assert_eq!(addition.secrets, ["other", "own"]);
    let digest = skills[0].digest();
    let [one, two] = &addition.init_containers[..] else { panic!("{addition:?}") };
    let command = ["skillctl", "pull", "--load=never", "--output", "/skillctl/skills"].map(str::to_owned);
    let of = |images: &[&str]| {
        let images = images.iter().map(|image| format!("{image}@{digest}"));
        json!(command.iter().cloned().chain(images).collect::<Vec<_>>())
    };
    assert_eq!((&one["name"], &one["command"]), (&json!("pull-skills"), &of(&["quay.io/acme/hr", "quay.io/acme/it"])));
    assert_eq!((&two["name"], &two["command"]), (&json!("pull-skills-2"), &of(&["registry.example:5000/acme/legal"])));
    assert_eq!(one["image"], "localhost/skillctl:latest");
    let security = json!({
        "runAsNonRoot": true, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    assert_eq!((&one["securityContext"], &two["securityContext"]), (&security, &security));
    assert_eq!(one["env"][3], json!({"name": "DOCKER_CONFIG", "value": "/skillctl-auth"}));
    let secret = |volume: &str, name: &str| {
        let items = json!([{"key": ".dockerconfigjson", "path": "config.json"}]);
        json!({"name": volume, "secret": {"secretName": name, "items": items}})
    };
    let directory = json!({"name": "skills", "emptyDir": {"sizeLimit": "64Mi"}});
    assert_eq!(addition.volumes, [directory, secret("skills-auth", "other"), secret("skills-auth-2", "own")]);
    let mount = json!({"name": "skills", "mountPath": "/skills/hr", "subPath": "skills/hr", "readOnly": true});
    assert_eq!(addition.mounts[0], mount);
}

#[test]
fn what_cannot_be_pulled_is_refused() {
    let local = addition(&skills(), "/skills", by_init(), &[]).unwrap_err().to_string();
    assert_eq!(local, "acme/legal@".to_owned() + skills()[1].digest() + " has no registry to pull it from");
    let two = ["a", "b"].map(|text| PullSecret::parse(text).unwrap());
    let several = addition(&skills()[..1], "/skills", by_init(), &two).unwrap_err().to_string();
    assert_eq!(several, "several secrets for quay.io: a, b");
}

#[test]
fn names_and_quantities_are_those_of_kubernetes() {
    for (text, want) in
        [("a", true), ("a.b-c", true), ("A", false), ("a..b", false), ("-a", false), ("", false), ("a\nb", false)]
    {
        assert_eq!(is_subdomain(text), want, "{text}");
        assert_eq!(PullSecret::parse(text).is_ok(), want, "{text}");
    }
    for (text, want) in [
        ("1Gi", true),
        ("500M", true),
        ("1024", true),
        ("", false),
        ("Gi", false),
        ("1gi", false),
        ("1 Gi", false),
        ("-1", false),
    ] {
        assert_eq!(is_quantity(text), want, "{text}");
    }
}
