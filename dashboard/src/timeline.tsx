import { EventTags } from './event-tags.tsx'
import { timeOfDay, weekday } from './format.ts'
import { surfaceClass, useNames } from './person-link.tsx'
import type { EventRow } from './questions.ts'

/** Events by day, in the order that they are given. */
export function Timeline({ rows }: { rows: EventRow[] }) {
  const names = useNames()
  return (
    <div class="timeline">
      {[...Map.groupBy(rows, ({ occurred_at }) => occurred_at.slice(0, 10))].map(([day, events]) => (
        <section key={day} aria-label={weekday(day)}>
          <h2>{weekday(day)}</h2>
          <ol>
            {events.map((event) => (
              <li key={event.event_id} class={`moment ${surfaceClass(event.surface)}`}>
                <time dateTime={event.occurred_at}>{timeOfDay(event.occurred_at)}</time>
                <p><span class="event-icon" aria-hidden="true">{event.icon}</span> <strong>{event.event}</strong></p>
                <p class="faint">{[event.channel, event.org_id && names.org(event.org_id), event.app_id && names.app(event.app_id)].filter(Boolean).join(' · ')}</p>
                <EventTags event={event} />
              </li>
            ))}
          </ol>
        </section>
      ))}
    </div>
  )
}
