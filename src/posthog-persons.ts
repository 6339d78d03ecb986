import { parseAnswer, post } from './http.ts'
import { requireSecret } from './secrets.ts'
import { misconfigured, SinkError, type Erased, type Notice, type SinkContext, type SinkSettings } from './sink.ts'

/** Where persons are deleted: PostHog's app, and the project. */
type PersonsSettings = { host?: string, app_host?: string, project_id?: string, timeout_seconds?: number }

/**
 * Deletes persons in PostHog, with their events and recordings (`/api/projects/:project_id/persons/bulk_delete/`,
 * https://posthog.com/docs/api/persons), with the secret `personal_api_key`, which has the scope `person:write`.
 * Settings: `project_id`; `app_host`, default that of `host`: https://us.posthog.com or https://eu.posthog.com.
 *
 * PostHog knows an org as the person that its announcements, and events without an actor, are by: that one is deleted.
 * The events of an org's people are theirs there, and stay.
 */
export function openPersons(batch: SinkSettings, context: SinkContext, settings: PersonsSettings) {
  const { project_id, timeout_seconds } = settings
  return async ({ subject, id }: Erased, signal: AbortSignal): Promise<Notice> => {
    if (!project_id) throw misconfigured(batch, 'cannot delete persons: it has no project_id')
    const key = requireSecret(batch, context, 'personal_api_key')
    const body = {
      distinct_ids: subject === 'actor' ? [id] : [id, `$organization_${id}`],
      delete_events: true, delete_recordings: true,
    }
    const answer = await post(batch, context, {
      url: new URL(`api/projects/${encodeURIComponent(project_id)}/persons/bulk_delete/`, appOf(settings)),
      headers: { authorization: `Bearer ${key}` }, body: JSON.stringify(body),
      signal, timeoutSeconds: timeout_seconds, secrets: [key],
    })
    const found = personsIn(batch, answer)
    const said = found === 0 ? 'PostHog knew no such person.' : 'PostHog deletes the person; their events when it is quiet.'
    return { outcome: 'told', detail: subject === 'actor' ? said : `${said} Events of the organization's people stay.` }
  }
}

function appOf({ host = 'https://us.i.posthog.com', app_host }: PersonsSettings): string {
  return `${(app_host ?? host.replace('.i.posthog.com', '.posthog.com')).replace(/\/*$/, '')}/`
}

/** How many persons there were; all of them are deleted, or it throws. */
function personsIn(batch: SinkSettings, answer: string): number {
  const { persons_found, events_queued_for_deletion, deletion_errors } = parseAnswer(answer) as
    { persons_found?: unknown, events_queued_for_deletion?: unknown, deletion_errors?: unknown }
  if (typeof persons_found !== 'number') {
    throw misconfigured(batch, 'is answered by something that does not delete persons', 200)
  }
  if (Array.isArray(deletion_errors) && deletion_errors.length > 0) {
    throw new SinkError('retry', `PostHog could not delete ${deletion_errors.length} of ${persons_found} persons.`)
  }
  if (persons_found > 0 && events_queued_for_deletion !== true) {
    throw new SinkError('retry', 'PostHog did not say that it deletes the person\'s events.')
  }
  return persons_found
}
