import { Command, InvalidArgumentError } from 'commander'
import type { Sql } from 'postgres'
import { examples, withCommon, type Cli, type CommonOptions } from './cli-options.ts'
import type { Batch, Progress } from './lease.ts'
import type { LoggedEvent } from './sink.ts'
import { asTable, jsonLine, visible } from './terminal.ts'

type Options = CommonOptions & { sink?: string, id?: string[], limit?: number }

/** `actorscope dead`: events that a sink refused for good. */
export function deadCommand(cli: Cli): Command {
  return new Command('dead')
    .description('look after events that a sink refused for good')
    .addHelpText('after', examples(`
actorscope dead list --sink posthog
actorscope dead retry --sink posthog
actorscope dead drop --sink posthog --id 01a1f3a0-4c00-7000-8000-000000000001`))
    .addCommand(listCommand(cli))
    .addCommand(retryCommand(cli))
    .addCommand(dropCommand(cli))
}

function withChoice(command: Command): Command {
  return withCommon(command)
    .option('--sink <name>', 'those of a sink')
    .option('--id <event_id>', 'this event; may be repeated', (text: string, before: string[] = []) => [...before, uuid(text)])
}

function uuid(text: string): string {
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) return text.toLowerCase()
  throw new InvalidArgumentError('It is no UUID.')
}

/** A dead letter. */
type Letter = { sink: string, scope_id: string, event_id: string, event: LoggedEvent, error: string, failed_at: Date, tries: number }

function listCommand(cli: Cli): Command {
  const command = new Command('list')
    .description('show them, the oldest first, and lifecycle events of builds that could not be written')
    .option('--limit <n>', 'how many (default: 100)', (text) => Math.max(1, Number.parseInt(text, 10) || 100))
  return withChoice(command).action(async (options: Options) => {
    const { withDatabase } = await import('./cli-database.ts')
    await withDatabase(cli, {}, async (sql) => {
      const letters = await find(sql, options, undefined, options.limit ?? 100)
      const builds = options.sink || options.id ? [] : await sql<Omit<Letter, 'sink'>[]>`
        select d.id as event_id, d.event, d.error, d.failed_at, d.tries from tracking.dead_letters as d order by d.failed_at limit ${options.limit ?? 100}`
      await show(cli, options, [...letters, ...builds.map((letter) => ({ ...letter, sink: '' }))])
    })
  })
}

async function show({ terminal }: Cli, { json }: Options, letters: Letter[]): Promise<void> {
  if (json) {
    for (const { sink, ...letter } of letters) await terminal.print(jsonLine({ sink: sink || null, ...letter }))
    return
  }
  if (letters.length === 0) return terminal.say('There are none.')
  const rows = letters.map(({ sink, event, event_id, error, failed_at, tries }) => [
    failed_at.toISOString().slice(0, 19) + 'Z', sink || '(builds)', visible(event.event ?? ''), event_id, String(tries), visible(error)])
  for (const line of asTable(['failed at', 'sink', 'event', 'id', 'tries', 'why'], rows)) await terminal.print(line)
}

function retryCommand(cli: Cli): Command {
  const command = new Command('retry')
    .description('send them again, now; and write lifecycle events of builds again')
    .addHelpText('after', `
What a sink takes counts as delivered. What it refuses again stays, with what it says now. Secrets of sinks come from
the environment, or from Supabase's Vault, as for actorscope worker.

Exit codes:
  0 done with all of them   1 a sink is out of order, or refused some again   2 the flags make no sense
`)
  return withChoice(command).action(async (options: Options) => {
    const { withDatabase } = await import('./cli-database.ts')
    await withDatabase(cli, {}, async (sql) => {
      const sinks = await sql<SinkRow[]>`
        select s.name as sink, s.kind, s.settings
        from   tracking.sinks as s
        where  exists (select from tracking.undelivered as u where u.sink = s.name)
        and    (${options.sink ?? null}::text is null or s.name = ${options.sink ?? null}::text)
        order  by s.name`
      for (const sink of sinks) await retry(sql, cli, options, sink)
      if (options.sink || options.id) return
      const [builds] = await sql<{ written: number, failed: number }[]>`select written, failed from tracking.retry_dead_letters()`
      if (builds!.written + builds!.failed > 0) await tell(cli, options, { sink: null, delivered: builds!.written, refused: builds!.failed })
    })
  })
}

type SinkRow = { sink: string, kind: string, settings: Record<string, unknown> }

const page = 500

async function retry(sql: Sql, cli: Cli, options: Options, sink: SinkRow): Promise<void> {
  const [{ endWithin, resend }, { openSink }, { loadSecrets }] = await Promise.all([import('./delivery.ts'), import('./sink.ts'), import('./secrets.ts')])
  const secret = await loadSecrets(sink, cli.environment, sql)
  const context = { secret, fetch: globalThis.fetch, sql, log: (message: string) => cli.terminal.say(visible(message)) }
  const open = (batch: Batch) => openSink(batch, context)
  const tally = { delivered: 0, refused: 0 }
  const [{ now: until } = { now: '' }] = await sql<{ now: string }[]>`select clock_timestamp()::text as now`
  for (;;) {
    const letters = await find(sql, { ...options, sink: sink.sink }, until, page)
    if (letters.length === 0 || cli.interrupted.aborted) break
    const batch: Batch = { ...sink, shard: 0, lease: '', failures: 0, more: false, events: letters.map(({ event }) => event) }
    const { progress, error } = await resend(batch, open, endWithin(10, cli.interrupted))
    tally.delivered += await settle(sql, progress, 'delivered')
    tally.refused += await settle(sql, progress, 'refused')
    if (error) throw error
  }
  await tell(cli, options, { sink: sink.sink, ...tally })
  if (tally.refused > 0) process.exitCode = 1
}

async function settle(sql: Sql, { batch, done, undelivered }: Progress, outcome: 'delivered' | 'refused'): Promise<number> {
  const errors = new Map(undelivered.map(({ place, error }) => [place, error]))
  const events = batch.events.slice(0, done).map(({ scope_id, event_id }, place) => ({ scope_id, event_id, error: errors.get(place) }))
    .filter(({ error }) => (error === undefined) === (outcome === 'delivered'))
  const [row] = await sql<{ count: number }[]>`select tracking.settle_undelivered(${batch.sink}, ${outcome}, ${JSON.stringify(events)}::text::jsonb) as count`
  return row!.count
}

async function tell({ terminal }: Cli, { json }: Options, result: { sink: string | null, delivered: number, refused: number }): Promise<void> {
  if (json) return terminal.print(jsonLine(result))
  const { sink, delivered, refused } = result
  terminal.say(`${sink === null ? 'Builds' : visible(sink)}: ${delivered} ${sink === null ? 'written' : 'delivered'}${refused > 0 ? `, ${refused} refused again` : ''}.`)
}

function dropCommand(cli: Cli): Command {
  const command = new Command('drop')
    .description('give them up')
    .addHelpText('after', `
They stay in the log, and count as dropped: a replay sends them again.

Exit codes:
  0 they are dropped   1 refused   2 the flags make no sense
`)
  return withChoice(command).action(async (options: Options) => {
    if (!options.sink && !options.id) command.error('error: name a --sink, or an event by --id')
    const { withDatabase } = await import('./cli-database.ts')
    await withDatabase(cli, {}, async (sql) => {
      let dropped = 0
      for (;;) {
        const letters = await find(sql, options, undefined, page)
        if (letters.length === 0) break
        for (const sink of new Set(letters.map((letter) => letter.sink))) {
          const given = letters.filter((letter) => letter.sink === sink).map(({ scope_id, event_id }) => ({ scope_id, event_id }))
          const [row] = await sql<{ count: number }[]>`select tracking.settle_undelivered(${sink}, 'dropped', ${JSON.stringify(given)}::text::jsonb) as count`
          dropped += row!.count
        }
      }
      if (options.json) await cli.terminal.print(jsonLine({ dropped }))
      else cli.terminal.say(`${dropped} dropped.`)
    })
  })
}

/** Finds dead letters of sinks, in the order of the log; with a time, those that have not been tried since. */
async function find(sql: Sql, { sink = undefined, id = undefined }: Options, until: string | undefined, limit: number): Promise<Letter[]> {
  await sql`set timezone = 'UTC'`
  return sql<Letter[]>`
    select u.sink, u.scope_id, u.event_id, row_to_json(jsonb_populate_record(null::public.events, u.event)) as event, u.error, u.failed_at, u.tries
    from   tracking.undelivered as u
    where  (${sink ?? null}::text is null or u.sink = ${sink ?? null}::text)
    and    (${id === undefined} or u.event_id = any (${id ?? []}::uuid[]))
    and    (${until ?? null}::text is null or u.failed_at < ${until ?? null}::text::timestamptz)
    order  by u.epoch, u.txid, u.event_id
    limit  ${limit}`
}
