//! Arguments that clap is told of when their verb is asked for.
//!
//! Describing the arguments of all verbs takes a fifth of the time of `skillctl --version`, and more with each verb; no run
//! needs those of more than one.

use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Id};

/// The arguments of a verb.
#[derive(Debug)]
pub struct Late<T>(pub T);

impl<T: Args> Args for Late<T> {
    fn augment_args(command: Command) -> Command {
        command.defer(|command| in_order(command, T::augment_args))
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(|command| in_order(command, T::augment_args_for_update))
    }
}

/// Adds a verb's own arguments before those of every verb, which it has by then, so that these end its help.
fn in_order(command: Command, augment: fn(Command) -> Command) -> Command {
    let global: Vec<Id> = command.get_arguments().map(|arg| arg.get_id().clone()).collect();
    // An argument that is changed becomes the last one.
    global.into_iter().fold(augment(command), |command, id| command.mut_arg(id, |arg| arg))
}

impl<T: FromArgMatches> FromArgMatches for Late<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use crate::cli::Cli;

    #[test]
    fn verbs_are_listed_with_their_own_words() {
        let listed = Cli::command();
        let mut built = Cli::command();
        built.build();
        for verb in listed.get_subcommands() {
            let own = built.find_subcommand(verb.get_name()).and_then(|verb| verb.get_about());
            let (listed, own) = (verb.get_about().map(ToString::to_string), own.map(ToString::to_string));
            assert!(listed.is_some() && listed == own, "{}: {listed:?}, {own:?}", verb.get_name());
        }
    }
}
