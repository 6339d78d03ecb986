import { createInterface } from 'node:readline/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { Command } from 'commander'
import type { Sql } from 'postgres'
import { examples, uuid, withCommon, type Cli, type CommonOptions } from './cli-options.ts'
import type { Reached } from './erasure.ts'
import { barOf } from './progress-bar.ts'
import { jsonLine, visible } from './terminal.ts'
import { TrackingError } from './tracking-error.ts'

type Options = CommonOptions & { yes?: boolean, dryRun?: boolean }
type Subject = 'actor' | 'org'

/** `actorscope erase`: forgets a person, or an organization. */
export function eraseCommand(cli: Cli): Command {
  return new Command('erase')
    .description('erase a person, or an organization, for good')
    .addHelpText('after', examples(`
actorscope erase actor 10000000-0000-4000-8000-000000000001 --dry-run
actorscope erase actor 10000000-0000-4000-8000-000000000001
actorscope erase org a0000000-0000-4000-8000-000000000002 --yes`))
    .addCommand(subjectCommand(cli, 'actor', 'erase a person: their events, API keys and roles; builds stay, without them'))
    .addCommand(subjectCommand(cli, 'org', 'erase an organization: its events, builds and apps, and the roles in it'))
}

function subjectCommand(cli: Cli, subject: Subject, description: string): Command {
  const command = new Command(subject)
    .description(description)
    .argument('<id>', 'whom', uuid)
    .option('--dry-run', 'say how much there is, and erase nothing')
    .option('--yes', 'do not ask whether that is meant')
    .addHelpText('after', `
It cannot be undone: actorscope export actor writes down what is held before. It goes in bites, so that nobody waits
for long, and may be interrupted: a worker, or the same command, goes on with it. A worker has the sinks told that can
be; the others are named. Speaks to Postgres itself (DATABASE_URL; without one, the local stack's).

Exit codes:
  0 nothing is left   1 refused or failed   2 the flags make no sense   130 interrupted, and a worker goes on with it
`)
  return withCommon(command).action(async (id: string, options: Options) => {
    const { withDatabase } = await import('./cli-database.ts')
    await withDatabase(cli, {}, (sql) => erase(sql, cli, { subject, id, ...options }))
  })
}

type Task = Options & { subject: Subject, id: string }

async function erase(sql: Sql, cli: Cli, task: Task): Promise<void> {
  const { terminal } = cli
  const { subject, id, json, dryRun = false, yes = false } = task
  const held = await count(sql, task)
  if (dryRun) {
    if (json) return terminal.print(jsonLine({ [subject]: id, ...held, dry_run: true }))
    return terminal.say(`There are ${inWords(held)}. Nothing was changed.`)
  }
  if (!yes) await confirm(cli, `This erases ${inWords(held)}, for good.`)
  const reached = await follow(sql, cli, task, held.events)
  const sinks = await sql<Notice[]>`
    select n.name, s.kind from tracking.erasure_notices as n join tracking.sinks as s on s.name = n.sink
    where n.erasure = ${reached.erasure} order by n.name`
  if (json) {
    const { erasure, events } = reached
    return terminal.print(jsonLine({ [subject]: id, erasure, events, sinks: sinks.map(({ name }) => name) }))
  }
  terminal.say(`Erased: ${several(reached.events, 'event')}, and all else. ${await sinksInWords(sinks)}`.trim())
}

type Held = { events: number, builds: number, letters: number, api_keys: number, roles: number }

async function count(sql: Sql, { subject, id }: Task): Promise<Held> {
  const [held] = await sql<Held[]>`
    select events::float8, builds::float8, letters::float8, api_keys::float8, roles::float8
    from   tracking.count_held(${subject}, ${id})`
  return held!
}

function inWords({ events, builds, letters, api_keys, roles }: Held): string {
  const counts = { event: events, build: builds, 'undelivered event': letters, 'API key': api_keys, role: roles }
  const words = Object.entries(counts).filter(([name, n]) => n > 0 || name === 'event')
    .map(([name, n]) => several(n, name))
  return words.length < 2 ? words.join() : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`
}

/** @throws {TrackingError} `not_confirmed`. */
async function confirm({ terminal, interrupted }: Cli, what: string): Promise<void> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    throw new TrackingError('not_confirmed', { details: what, hint: 'Say --yes where nobody can be asked.' })
  }
  terminal.say(what)
  const asking = createInterface({ input: process.stdin, output: process.stderr })
  const answer = await asking.question('Type yes to go on: ', { signal: interrupted }).finally(() => asking.close())
  if (answer.trim().toLowerCase() !== 'yes') {
    throw new TrackingError('not_confirmed', { details: 'Nothing was erased.', hint: 'Type yes, or say --yes.' })
  }
}


// Bites ---------------------------------------------------------------------------------------------

const pauseMs = 500

/** Asks for it, and goes on until nothing is left. */
async function follow(sql: Sql, { terminal, interrupted }: Cli, task: Task, total: number): Promise<Reached> {
  const { continueErasure } = await import('./erasure.ts')
  const show = ({ events, waitsFor }: Reached) => {
    const held = waitsFor ? `, waits for a batch of ${visible(waitsFor.join(', '))}` : ''
    terminal.showBar(barOf(total > 0 ? Math.min(1, events / total) : 1, `${amount(events)} of ${amount(total)} events${held}`, terminal.width))
  }
  try {
    let reached = await ask(sql, task)
    while (!reached.done) {
      show(reached)
      if (reached.waitsFor) await sleep(pauseMs, undefined, { signal: interrupted })
      reached = await continueErasure({ sql, signal: interrupted }, reached.erasure, show).catch(async (error: { code?: string }) => {
        if (error.code !== '55P03') throw error
        await sleep(pauseMs, undefined, { signal: interrupted })
        return reached
      })
      interrupted.throwIfAborted()
    }
    return reached
  } finally {
    terminal.showBar('')
    if (interrupted.aborted) terminal.say('Interrupted: a worker, or the same command, goes on with it.')
  }
}

async function ask(sql: Sql, { subject, id }: Task): Promise<Reached> {
  const [reached] = subject === 'actor' ? await sql<Reached[]>`
    select erasure, events::float8 as events, done, waits_for as "waitsFor" from tracking.erase_actor(${id})`
    : await sql<Reached[]>`
      select erasure, events::float8 as events, done, waits_for as "waitsFor" from tracking.erase_org(${id})`
  return reached!
}

type Notice = { name: string, kind: string }

async function sinksInWords(sinks: Notice[]): Promise<string> {
  const { canBeTold } = await import('./sinks.ts')
  const names = (which: boolean) => sinks.filter(({ kind }) => canBeTold(kind) === which).map(({ name }) => visible(name)).join(', ')
  const told = names(true) && `A worker tells ${names(true)}.`
  return [told, names(false) && `${names(false)} cannot be told: see to it yourself.`].filter(Boolean).join(' ')
}

const amount = (number: number): string => number.toLocaleString('en')
const several = (number: number, name: string): string => `${amount(number)} ${name}${number === 1 ? '' : 's'}`
