import { useEffect, useRef, useState } from 'preact/hooks'
import { EventTags } from './event-tags.tsx'
import { many, timeOfDay, date } from './format.ts'
import { Icon } from './icons.tsx'
import { Page } from './page.tsx'
import { PersonLink, useNames } from './person-link.tsx'
import { latestEvents, readOn, type LogRow, type Problem } from './questions.ts'
import { Answered, Empty, NoEvents, Trouble } from './states.tsx'
import { useAnswer, useFilters, useWorld } from './world.ts'

/** How often the log is asked for more, in milliseconds; after a failure, how long at most. */
const pace = 2000
const slowest = 30_000
/** How many events are kept on the page. */
const room = 200

/** What happens now: events as they are committed, the latest first. */
export function Live() {
  const { org, app } = useFilters()
  const [isPaused, setPaused] = useState(false)
  const [wanted, setWanted] = useState('')
  const before = useAnswer(latestEvents({ org, app }, 50))
  const { events, problem, retry } = useLog(isPaused)
  const fresh = events.filter((event) => (!org || event.org_id === org) && (!app || event.app_id === app))
  const seen = new Set<string>()
  const all = [...fresh, ...before.rows ?? []].filter(({ event_id }) => !seen.has(event_id) && seen.add(event_id)).slice(0, room)
  const text = wanted.toLowerCase()
  const shown = all.filter((event) => text === '' || JSON.stringify([event.event, event.channel, event.actor_id, event.tags]).toLowerCase().includes(text))
  return (
    <Page title="Live" lead="Events as they come in, the latest first." filters={['app']}>
      <div class="live-bar">
        <button type="button" class="button" aria-pressed={isPaused} onClick={() => setPaused(!isPaused)}>
          <Icon name={isPaused ? 'play' : 'pause'} /> {isPaused ? 'Go on' : 'Pause'}
        </button>
        <label class="field">
          <span class="visually-hidden">Only events with</span>
          <input type="search" placeholder="Only events with …" value={wanted} onInput={({ currentTarget }) => setWanted(currentTarget.value)} />
        </label>
        <p class={`pulse ${isPaused || problem ? 'off' : ''}`} role="status">
          {problem ? 'Not connected' : isPaused ? 'Paused' : fresh.length ? `Live, ${many(fresh.length, 'new event')}` : 'Live'}
        </p>
      </div>
      {problem && <Trouble problem={problem} retry={retry} />}
      <Answered answer={all.length ? { ...before, rows: all, isLoading: false } : before} empty={<NoEvents />}>
        {() => (shown.length
          ? <ol class="feed">{shown.map((event) => <FeedItem key={event.event_id} event={event} isFresh={fresh.includes(event)} />)}</ol>
          : <Empty title="None of these"><p>No event here has “{wanted}” in its name, channel, actor or tags. <button type="button" class="link" onClick={() => setWanted('')}>Show all</button></p></Empty>)}
      </Answered>
    </Page>
  )
}

/** Reads the log on from now, the latest first, while the page is looked at. */
function useLog(isPaused: boolean): { events: LogRow[], problem?: Problem, retry(): void } {
  const { supabase, sessionOver } = useWorld()
  const [events, setEvents] = useState<LogRow[]>([])
  const [problem, setProblem] = useState<Problem>()
  const [tries, setTries] = useState(0)
  const cursor = useRef<object | null>(null)
  useEffect(() => {
    if (isPaused) return
    let timer: ReturnType<typeof setTimeout>
    let isOver = false
    let wait = pace
    const read = async () => {
      try {
        if (document.visibilityState === 'visible') {
          const answer = await readOn(supabase, cursor.current)
          if (isOver) return
          cursor.current = answer.cursor
          if (answer.events.length) setEvents((known) => [...answer.events.toReversed(), ...known].slice(0, room))
        }
        setProblem(undefined)
        wait = pace
      } catch (reason) {
        if (isOver) return
        if ((reason as Problem).isSessionOver) sessionOver()
        setProblem(reason as Problem)
        wait = Math.min(2 * wait, slowest)
      }
      timer = setTimeout(read, wait)
    }
    void read()
    return () => {
      isOver = true
      clearTimeout(timer)
    }
  }, [isPaused, tries])
  return { events, problem, retry: () => setTries((n) => n + 1) }
}

function FeedItem({ event, isFresh }: { event: LogRow, isFresh: boolean }) {
  const names = useNames()
  return (
    <li class={isFresh ? 'feed-item fresh' : 'feed-item'}>
      <time dateTime={event.occurred_at}><span class="feed-day">{date(event.occurred_at)}</span> {timeOfDay(event.occurred_at)}</time>
      <p class="feed-what"><span class="event-icon" aria-hidden="true">{event.icon}</span> <strong>{event.event}</strong> <span class="faint">{event.channel}</span></p>
      <p class="feed-who">
        <PersonLink id={event.actor_id} />
        {event.org_id && <> for {names.org(event.org_id)}</>}
        {event.app_id && <>, {names.app(event.app_id)}</>}
      </p>
      <EventTags event={event} />
    </li>
  )
}
