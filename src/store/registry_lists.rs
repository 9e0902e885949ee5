//! What registries list: the tags of a repository, and what refers to a manifest.

use serde::Deserialize;
use ureq::http::Method;

use super::http::{Scheme, Url};
use super::registries_conf::Endpoint;
use super::registry::{LIMIT, Registry};
use super::registry_error::{Trouble, error};
use super::registry_wire::Call;
use crate::error::{Fault, Result};
use crate::reference::{Reference, is_digest, is_tag};

/// Tags of one repository; nightly builds of twenty years have fewer.
const MAX_TAGS: usize = 100_000;
/// Tags asked for at once: the most that common registries give.
const PAGE: usize = 1000;
impl Registry {
    /// Returns the tags of a repository, in the registry's order.
    ///
    /// # Errors
    /// [`Error::Registry`]; with [`Fault::NotFound`] where there is no such repository.
    pub fn tags(&self, repository: &Reference) -> Result<Vec<String>> {
        let tags = self.read(repository, |endpoint| self.tags_at(endpoint))?;
        let (registry, path) = repository.name().split_once('/').unwrap_or(("", repository.name()));
        tags.ok_or_else(|| error(registry, Fault::NotFound, format!("{path}: repository not found")))
    }

    fn tags_at(&self, endpoint: &Endpoint) -> Result<Option<Vec<String>>, Trouble> {
        let mut tags = Vec::new();
        let path = format!("/v2/{}/tags/list?n={PAGE}", endpoint.repository());
        let found = self.pages(endpoint, path, ("tags of", usize::MAX), |body| {
            let page: TagPage = serde_json::from_slice(body).ok()?;
            // What is no tag can be asked for by nobody, and may be as long as the page.
            tags.extend(page.tags.unwrap_or_default().into_iter().filter(|tag| is_tag(tag)));
            Some(tags.len())
        })?;
        Ok(found.then_some(tags))
    }

    /// Returns the digests of what refers to the manifest that `reference` names by digest, and not many more than `enough`; `None` where the registry does not offer
    /// that (distribution specification, listing referrers).
    ///
    /// # Errors
    /// As [`Self::tags`].
    pub fn referrers(&self, reference: &Reference, enough: usize) -> Result<Option<Vec<String>>> {
        let digest = reference.digest().unwrap_or_default();
        self.read(reference, |endpoint| {
            let mut digests = Vec::new();
            let path = format!("/v2/{}/referrers/{digest}", endpoint.repository());
            let found = self.pages(endpoint, path, ("referrers in", enough), |body| {
                let page: ReferrerPage = serde_json::from_slice(body).ok()?;
                digests.extend(page.manifests.into_iter().map(|one| one.digest).filter(|digest| is_digest(digest)));
                Some(digests.len())
            });
            match found {
                Ok(found) => Ok(found.then_some(digests)),
                // Older ones answer this for what they do not know.
                Err(trouble) if trouble.error.fault() == Some(Fault::Unsupported) => Ok(None),
                Err(trouble) => Err(trouble),
            }
        })
    }

    /// Reads a list that a registry gives in pages: `take` adds one, and returns how many items there are, or `None` for what is
    /// no list. Returns whether there is such a list.
    fn pages(
        &self,
        endpoint: &Endpoint,
        mut path: String,
        (list, enough): (&str, usize),
        mut take: impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<bool, Trouble> {
        let what = endpoint.repository().to_owned();
        let protocol = |reason: &str| error(endpoint.registry(), Fault::Protocol, format!("{list} {what}: {reason}"));
        let mut before = 0;
        loop {
            let call = Call {
                method: Method::GET,
                path: path.clone(),
                accept: None,
                limit: LIMIT,
                body: None,
                actions: self.reading(),
                what: what.clone(),
            };
            let Some(response) = self.call(endpoint, &call)? else { return Ok(false) };
            let count = take(&response.body).ok_or_else(|| protocol("its answer is no list"))?;
            if count > MAX_TAGS {
                return Err(protocol(&format!("more than {MAX_TAGS}")).into());
            }
            let link = response.headers.get_all("link").iter().filter_map(|v| v.to_str().ok()).find_map(next_page);
            let Some(link) = link.filter(|_| count <= enough) else { return Ok(true) };
            // The scheme is what the registry thinks that it speaks, which is another one behind a proxy for TLS.
            let here = Url { scheme: Scheme::Https, authority: endpoint.host().to_owned(), path: path.clone() };
            let next = here.join(&link).filter(|next| next.same_host(&here) || next.authority == here.authority);
            let next = next.ok_or_else(|| protocol("its next page is on another host"))?;
            if count == before || next.path == path {
                return Err(protocol("its pages do not end").into());
            }
            (path, before) = (next.path, count);
        }
    }
}

/// A page of an index of referrers.
#[derive(Deserialize)]
struct ReferrerPage {
    manifests: Vec<Referrer>,
}

#[derive(Deserialize)]
struct Referrer {
    digest: String,
}

/// A page of tags; the list is null where all were deleted.
#[derive(Deserialize)]
struct TagPage {
    tags: Option<Vec<String>>,
}

/// Returns the address of the next page from a `Link` header: `</v2/n/tags/list?last=x>; rel="next"`.
pub(super) fn next_page(header: &str) -> Option<String> {
    let mut rest = header;
    while let Some((_, after)) = rest.split_once('<') {
        let (address, after) = after.split_once('>')?;
        let parameters = after.split(",<").next().and_then(|p| p.split(", <").next()).unwrap_or_default();
        let is_next = parameters.split(';').filter_map(|p| p.split_once('=')).any(|(key, value)| {
            let value = value.trim().trim_end_matches(',').trim_matches('"');
            key.trim().eq_ignore_ascii_case("rel") && value.split(' ').any(|rel| rel.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Some(address.to_owned());
        }
        rest = after;
    }
    None
}
