use super::*;
use crate::generate::volume::tests::skill;

fn skills() -> [Skill; 2] {
    [skill("quay.io/acme/hr", "hr", Some("1.0.0")), skill("acme/legal", "legal", None)]
}

/// Returns what an init container adds.
pub fn by_init(skills: &[Skill], secrets: &[&str], puller: &str) -> Result<Addition> {
    let puller = Puller { image: puller.to_owned(), tagged: None };
    let size_limit = Quantity::parse("64Mi").unwrap();
    let secrets: Vec<_> = secrets.iter().map(|text| PullSecret::parse(text).unwrap()).collect();
    addition(skills, "/skills", Style::InitContainer { puller: &puller, size_limit: &size_limit }, &secrets)
}

#[test]
fn a_pod_has_its_skills_by_digest() {
    let addition = addition(&skills(), "/skills", Style::ImageVolume, &[]).unwrap();
    let digest = skills()[0].digest().to_owned();
    let want = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: agent\n  annotations:\n    tag.skillimage.io/skill-hr: \
         quay.io/acme/hr:1.0.0\nspec:\n  containers:\n    - name: agent\n      image: quay.io/acme/agent:2\n      \
         imagePullPolicy: IfNotPresent\n      securityContext:\n        allowPrivilegeEscalation: false\n        \
         capabilities:\n          drop:\n            - ALL\n        seccompProfile:\n          type: RuntimeDefault\n      \
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
    let addition = by_init(&skills, &["other", "registry.example:5000=own"], PULLER).unwrap();
    assert_eq!(addition.secrets, ["other", "own"]);
    let digest = skills[0].digest();
    let [one, two] = &addition.init_containers[..] else { panic!("{addition:?}") };
    let command =
        ["skillctl", "pull", "--load=never", "--max-size=67108864", "--output", "/skillctl/skills"].map(str::to_owned);
    let of = |images: &[&str]| {
        let images = images.iter().map(|image| format!("{image}@{digest}"));
        json!(command.iter().cloned().chain(images).collect::<Vec<_>>())
    };
    assert_eq!(
        (&one["name"], &one["command"]),
        (&json!("skillctl-pull"), &of(&["quay.io/acme/hr", "quay.io/acme/it"]))
    );
    assert_eq!(
        (&two["name"], &two["command"]),
        (&json!("skillctl-pull-2"), &of(&["registry.example:5000/acme/legal"]))
    );
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
    let directory = json!({"name": "skillctl-skills", "emptyDir": {"sizeLimit": "64Mi"}});
    assert_eq!(addition.volumes, [directory, secret("skillctl-auth", "other"), secret("skillctl-auth-2", "own")]);
    let mount = json!({"name": "skillctl-skills", "mountPath": "/skills/hr", "subPath": "skills/hr", "readOnly": true});
    assert_eq!(addition.mounts[0], mount);
}

#[test]
fn kubelets_pull_what_a_registry_has() {
    let policy = |image: &str| {
        let container = by_init(&skills()[..1], &[], image).unwrap().init_containers.remove(0);
        let agent = pod("a", image, &addition(&[], "/", Style::ImageVolume, &[]).unwrap());
        assert_eq!(agent["spec"]["containers"][0]["imagePullPolicy"], container["imagePullPolicy"]);
        container["imagePullPolicy"].as_str().unwrap().to_owned()
    };
    let cases = [
        (PULLER, "Never"),
        ("localhost/a:1", "Never"),
        ("localhost:5000/a:latest", "IfNotPresent"),
        ("quay.io/acme/skillctl", "IfNotPresent"),
        ("python:3", "IfNotPresent"),
    ];
    for (image, want) in cases {
        assert_eq!(policy(image), want, "{image}");
    }
}

#[test]
fn names_that_are_taken_are_numbered_on() {
    let skills = [skill("quay.io/acme/hr", "hr", None), skill("registry.example/acme/it", "it", None)];
    let mut added = by_init(&skills, &["a", "registry.example=b"], PULLER).unwrap();
    added.annotations.insert("tag.skillimage.io/skillctl-pull".into(), "a".into());
    let cases = [
        (
            &["other", "skills", "skill-hr"][..],
            ["skillctl-pull", "skillctl-pull-2", "skillctl-auth-2", "skillctl-skills"],
        ),
        (&["skillctl-skills"], ["skillctl-pull-2", "skillctl-pull-3", "skillctl-auth-3", "skillctl-skills-2"]),
        (&["skillctl-auth-2"], ["skillctl-pull-3", "skillctl-pull-4", "skillctl-auth-4", "skillctl-skills-3"]),
    ];
    for (taken, [pull, second, auth, skills]) in cases {
        let beside = added.beside(&taken.iter().copied().collect());
        let [one, two] = &beside.init_containers[..] else { panic!("{beside:?}") };
        assert_eq!((&one["name"], &two["name"]), (&json!(pull), &json!(second)));
        assert_eq!((&two["volumeMounts"][0]["name"], &two["volumeMounts"][1]["name"]), (&json!(skills), &json!(auth)));
        assert_eq!((&beside.volumes[0]["name"], &beside.volumes[2]["name"]), (&json!(skills), &json!(auth)));
        assert_eq!(beside.volumes[2]["secret"]["secretName"], "b");
        assert_eq!((&beside.mounts[1]["name"], &beside.mounts[1]["subPath"]), (&json!(skills), &json!("skills/it")));
        assert_eq!(one["env"][0], json!({"name": "HOME", "value": "/skillctl"}));
        assert_eq!(beside.annotations.keys().collect::<Vec<_>>(), [&format!("tag.skillimage.io/{pull}")]);
    }
}

#[test]
fn what_cannot_be_pulled_is_refused() {
    let local = by_init(&skills(), &[], PULLER).unwrap_err().to_string();
    assert_eq!(local, "acme/legal@".to_owned() + skills()[1].digest() + " has no registry to pull it from");
    let secrets = [
        (&["a", "b"][..], "several secrets for quay.io: a, b"),
        (&["quay.ioo=a"], "the secret a is for quay.ioo, of which there is no skill"),
        (&["b", "quay.ioo=a"], "the secret a is for quay.ioo, of which there is no skill"),
    ];
    for (secrets, want) in secrets {
        assert_eq!(by_init(&skills()[..1], secrets, PULLER).unwrap_err().to_string(), want);
    }
    // The kubelet needs one for the image of the container itself.
    let own = by_init(&skills()[..1], &["registry.example=a"], "registry.example/acme/skillctl:1").unwrap();
    assert_eq!((own.secrets.len(), own.volumes.len()), (1, 1));
}

#[test]
fn names_and_quantities_are_those_of_kubernetes() {
    for (text, want) in
        [("a", true), ("a.b-c", true), ("A", false), ("a..b", false), ("-a", false), ("", false), ("a\nb", false)]
    {
        assert_eq!(is_subdomain(text), want, "{text}");
        assert_eq!(PullSecret::parse(text).is_ok(), want, "{text}");
    }
    let quantities = [
        ("1Gi", Some(1 << 30)),
        ("500M", Some(500_000_000)),
        ("1024", Some(1024)),
        ("2k", Some(2000)),
        ("8388607Ti", Some(8_388_607 << 40)),
        ("8388608Ti", None),
        ("99999999999999999999", None),
        ("0", None),
        ("", None),
        ("Gi", None),
        ("1gi", None),
        ("1 Gi", None),
        ("+1", None),
        ("-1", None),
    ];
    for (text, want) in quantities {
        assert_eq!(Quantity::parse(text).ok().map(|quantity| quantity.bytes), want, "{text}");
    }
}
