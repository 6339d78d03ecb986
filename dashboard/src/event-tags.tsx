import { linkTo } from './route.ts'
import type { LogRow } from './questions.ts'
import { useWorld } from './world.ts'

/** What an event says of itself, folded away; a build is a link to its own page. */
export function EventTags({ event: { event, tags, description, channel } }: { event: LogRow }) {
  const { route } = useWorld()
  const told = Object.entries(tags).filter(([name]) => name !== 'org_id' && name !== 'app_id')
  const build = channel === 'build-lifecycle' && typeof tags.build_id === 'string' ? tags.build_id : undefined
  if (!told.length && !description) return null
  return (
    <details class="tags">
      <summary>{build ? 'Build' : 'Tags'}<span class="visually-hidden"> of {event}</span></summary>
      {description && <p>{description}</p>}
      {build && <p><a href={linkTo(route, 'builds', build)}>See the whole build</a></p>}
      <dl>
        {told.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{typeof value === 'string' ? value : JSON.stringify(value)}</dd></div>)}
      </dl>
    </details>
  )
}
