//! The figures of skills from elsewhere than a directory: artifacts, Git repositories and collections.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use super::figures::{Bench, Figure, Target, ms};
use super::inputs;
use super::measure::{Contestant, run, sync_probe};
use super::peers::{installed, must};

/// Skills of the repository.
const SKILLS: usize = 300;
/// What one of them may take beside the fetch, in milliseconds.
const EACH: u64 = 5;
/// Skills of the collection.
const MEMBERS: usize = 50;

impl Bench {
    pub fn convert_many(&self, name: &'static str) -> Result<Figure> {
        let world = &self.world;
        let (dir, store) = (self.inputs.many()?, world.path("convert-store"));
        must(self.build(&store, &dir).args(["--format=artifact", "--tag=bench/artifact:1.0.0"]))?;
        let mut ours = world.ours(&store);
        ours.args(["--quiet", "convert", "bench/artifact:1.0.0", "bench/image:1.0.0", "--load=never"]);
        let contestants = vec![
            Contestant::command("ours", Some(ours)),
            Contestant::command("our build", Some(self.build(&world.path("convert-build-store"), &dir))),
        ];
        Ok(self.figure(name, 20, contestants, vec![Target::Ratio("our build", 1.3)]))
    }

    pub fn build_git(&self, name: &'static str) -> Result<Figure> {
        let (world, repository) = (&self.world, self.repository()?);
        let scratch = world.path("sync-probe");
        fs::create_dir_all(&scratch)?;
        let url = format!("file://{}", repository.display());
        // Each time all of it is new.
        let ours = Contestant::new("ours", |round| {
            let mut build = world.ours(&world.path(format!("git-store/{round}")));
            run(build.args(["--quiet", "build", "--load=never", &url]))
        });
        let git = Contestant::new("git clone --depth 1", |round| {
            let mut clone = world.command("git");
            run(clone.args(["clone", "--quiet", "--depth=1", &url]).arg(world.path(format!("git-clone/{round}"))))
        });
        let contestants = vec![ours, git.only_if(installed("git")), self.spawn_probe(), sync_probe(&scratch)];
        let target = Target::RatioAndTime("git clone --depth 1", 1.2, ms(EACH * SKILLS as u64));
        Ok(self.figure(name, 10, contestants, vec![target]))
    }

    pub fn install_collection(&self, name: &'static str) -> Result<Figure> {
        let (world, registry) = (&self.world, self.registry()?);
        let (source, file) = (world.path("collection-source"), world.path("collection.yaml"));
        let mut yaml = "apiVersion: skillimage.io/v1alpha1\nkind: SkillCollection\n\
                        metadata:\n  name: members\n  version: 1.0.0\nskills:\n"
            .to_owned();
        for number in 0..MEMBERS {
            let (skill, dir) = (format!("m{number}"), world.path(format!("members/m{number}")));
            let image = registry.name(&format!("members/{skill}:1.0.0"));
            inputs::named(&dir, &skill, "1.0.0", "")?;
            self.seed(&source, &dir, &format!("bench/{skill}"), &image)?;
            yaml += &format!("  - name: {skill}\n    image: {image}\n");
        }
        fs::write(&file, yaml)?;
        let collection = registry.name("sets/members:1.0.0");
        must(world.ours(&source).args(["collection", "push", &collection, "-f"]).arg(file))?;
        // Into an empty store and an empty directory.
        let ours = Contestant::new("ours", |round| {
            let (store, dir) = (world.path(format!("member-store/{round}")), world.path(format!("member/{round}")));
            fs::create_dir_all(&dir)?;
            run(world.ours(&store).args(["collection", "install", &collection, "-o"]).arg(dir))
        });
        Ok(self.figure(name, 10, vec![ours, self.spawn_probe()], vec![Target::Time(ms(4_000))]))
    }

    /// Returns a Git repository of small skills, with one commit.
    fn repository(&self) -> Result<PathBuf> {
        let dir = self.world.path("repository");
        for number in 0..SKILLS {
            let skill = format!("s{number}");
            inputs::named(&dir.join("skills").join(&skill), &skill, "1.0.0", "")?;
        }
        let who = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"];
        for args in [&["init", "--quiet"][..], &["add", "."], &["commit", "--quiet", "-m", "skills"]] {
            must(self.world.command("git").args(who).arg("-C").arg(&dir).args(args))?;
        }
        Ok(dir)
    }
}
