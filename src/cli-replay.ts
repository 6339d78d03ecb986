import { setTimeout as sleep } from 'node:timers/promises'
import { Command, InvalidArgumentError } from 'commander'
import type { Sql, TransactionSql } from 'postgres'
import { examples, timeFromNow, withCommon, type Cli, type CommonOptions } from './cli-options.ts'
import { barOf } from './progress-bar.ts'
import { jsonLine, visible, type Terminal } from './terminal.ts'

type Options = CommonOptions & { sink: string, since: Date | 'beginning', dryRun?: boolean, wait: boolean }

/** `actorscope replay`: sends events again. */
export function replayCommand(cli: Cli): Command {
  const command = new Command('replay')
    .description('send a sink again what was received since a time')
    .requiredOption('--sink <name>', 'the sink')
    .requiredOption('--since <time>', 'a time, 2026-11-05T09:30:00Z or 2h; or beginning, for all there is', sinceTime)
    .option('--dry-run', 'say how many events those are, and send nothing')
    .option('--no-wait', 'do not wait until they are delivered')
    .addHelpText('after', examples(`
actorscope replay --sink posthog --since 2026-10-01 --dry-run
actorscope replay --sink posthog --since 2h
actorscope replay --sink archive --since beginning --no-wait`) + `
The same ids, names, times and actors are sent, in the same order. What the sink has still to get stays to be
delivered. A worker does the sending; it may go on while nobody waits for it. Speaks to Postgres itself
(DATABASE_URL; without one, the local stack's).

Exit codes:
  0 the sink is rewound, and has caught up where that was waited for   1 refused   2 the flags make no sense
  130 the sink is rewound, and nobody waits any more
`)
  return withCommon(command).action(async (options: Options) => {
    const { withDatabase } = await import('./cli-database.ts')
    await withDatabase(cli, {}, (sql) => replay(sql, cli, options))
  })
}

function sinceTime(text: string): Date | 'beginning' {
  if (text === 'beginning') return text
  const time = timeFromNow(-1)(text)
  if (time.getTime() > Date.now()) throw new InvalidArgumentError('It is a time to come.')
  return time
}

async function replay(sql: Sql, { terminal, interrupted }: Cli, options: Options): Promise<void> {
  const { sink, since, dryRun = false, wait, json } = options
  const { standing: { pending: events, rate }, gone } = await rewind(sql, options)
  const seconds = rate === null ? null : events / rate
  const rounded = seconds === null ? null : Math.round(seconds)
  if (json) await terminal.print(jsonLine({ sink, since, events, gone, estimated_seconds: rounded, dry_run: dryRun }))
  else terminal.say(inWords(events, gone, seconds, options))
  if (dryRun || !wait) return
  const end = await follow(sql, sink, events, terminal, interrupted)
  if (json) await terminal.print(jsonLine({ sink, ...end }))
  else terminal.say(farewell(end))
}

/** How far a sink is. */
type Standing = {
  pending: number
  done: number
  delivered: number
  undelivered: number
  failures: number
  lastError: string | null
  retryAt: Date | null
  rate: number | null
  isWorkedOn: boolean
  enabled: boolean
}

async function read(sql: Sql | TransactionSql, sink: string): Promise<Standing> {
  const [row] = await sql<Standing[]>`
    select l.pending::float8, (l.delivered + l.filtered + l.undelivered + l.dropped)::float8 as done,
           l.delivered::float8, l.undelivered::float8, l.failures, l.last_error as "lastError", l.retry_at as "retryAt",
           l.events_a_second as rate, l.enabled,
           exists (
             select from tracking.cursors as c where c.sink = l.sink and c.leased_until > now()
           ) as "isWorkedOn"
    from   tracking.sink_lag as l
    where  l.sink = ${sink}`
  return row!
}

/** Where the sink stands then, and how many events are no more in the log, at most. */
type Rewound = { standing: Standing, gone: number }

async function rewind(sql: Sql, { sink, since, dryRun }: Options): Promise<Rewound> {
  const to = since === 'beginning' ? '-infinity' : since.toISOString()
  const undo = new Error('A dry run.')
  let rewound: Rewound | undefined
  await sql.begin(async (tx) => {
    const [row] = await tx<{ gone: number }[]>`
      select tracking.rewind_sink(${sink}, ${to}::text::timestamptz)::float8 as gone`
    rewound = { standing: await read(tx, sink), gone: row!.gone }
    if (dryRun) throw undo
  }).catch((error: unknown) => {
    if (error !== undo) throw error
  })
  return rewound!
}

function inWords(events: number, gone: number, seconds: number | null, { sink, dryRun }: Options): string {
  const time = seconds === null ? 'how fast it takes them is not known yet'
    : `at the rate of its last large batches that takes ${span(seconds)}`
  const what = `${amount(events)} ${events === 1 ? 'event' : 'events'}, but for those that its filters leave out`
  const sentence = `${dryRun ? 'Would send' : 'Sends'} ${visible(sink)} ${what}${events > 0 ? `; ${time}` : ''}.`
  const lost = gone > 0 ? `Up to ${amount(gone)} others are not in the log any more: their partitions were dropped.` : ''
  return [sentence, lost, dryRun ? 'Nothing was changed.' : ''].filter(Boolean).join(' ')
}


// Waiting -------------------------------------------------------------------------------------------

type End = {
  result: 'caught_up' | 'no_worker' | 'disabled' | 'rewound_again'
  delivered: number
  undelivered: number
  seconds: number
}

const lookEveryMs = 500
const workerComesWithinMs = 5000

/** Waits until the events that there were are delivered. */
async function follow(
  sql: Sql, sink: string, total: number, terminal: Terminal, interrupted: AbortSignal,
): Promise<End> {
  const started = Date.now()
  let best = 0
  let movedAt = started
  let told: string | null = null
  try {
    for (;;) {
      const standing = await read(sql, sink)
      const { done, delivered, undelivered, failures, lastError, retryAt } = standing
      const isPaused = failures > 0 && retryAt !== null && retryAt.getTime() > Date.now()
      if (done > best || standing.isWorkedOn || isPaused) movedAt = Date.now()
      const result = resultOf(standing, total, best, Date.now() - movedAt > workerComesWithinMs)
      if (result) return { result, delivered, undelivered, seconds: (Date.now() - started) / 1000 }
      best = done
      if (!terminal.hasBar && failures > 0 && lastError !== told) {
        terminal.say(`${visible(sink)} is tried again: ${visible(lastError ?? '')}`)
        told = lastError
      }
      terminal.showBar(bar(standing, total, Date.now() - started, terminal.width))
      await sleep(lookEveryMs, undefined, { signal: interrupted })
    }
  } finally {
    terminal.showBar('')
  }
}

function resultOf(standing: Standing, total: number, before: number, isIdle: boolean): End['result'] | undefined {
  if (standing.done < before) return 'rewound_again'
  if (standing.done >= total || standing.pending === 0) return 'caught_up'
  if (!standing.enabled) return 'disabled'
  return isIdle ? 'no_worker' : undefined
}

function bar(standing: Standing, total: number, elapsedMs: number, width: number): string {
  const { done, failures, lastError, retryAt } = standing
  const secondsLeft = (total - done) / done * elapsedMs / 1000
  const left = done > 0 && elapsedMs > 2000 ? `, ${span(secondsLeft)} left` : ''
  const when = retryAt ? ` at ${retryAt.toISOString().slice(11, 19)}` : ''
  const trouble = `, tries again${when}: ${visible(lastError ?? '')}`
  return barOf(done / total, `${amount(done)} of ${amount(total)} events${failures > 0 ? trouble : left}`, width)
}

function farewell({ result, delivered, undelivered, seconds }: End): string {
  const refused = undelivered > 0 ? `, and ${amount(undelivered)} were refused (actorscope dead list)` : ''
  switch (result) {
    case 'caught_up': return `Done in ${span(seconds)}: the sink has ${amount(delivered)} of them${refused}.`
    case 'no_worker':
      return 'The sink is rewound, and nobody is at it yet: start actorscope worker, where nothing else delivers.'
    case 'disabled': return 'The sink is rewound, and disabled: nothing is sent until it is enabled.'
    case 'rewound_again': return 'Somebody else has rewound the sink meanwhile.'
  }
}

const amount = (count: number): string => count.toLocaleString('en')

function span(seconds: number): string {
  if (seconds < 1) return 'under a second'
  if (seconds < 100) return `${Math.ceil(seconds)} s`
  return seconds < 6000 ? `${Math.ceil(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`
}
