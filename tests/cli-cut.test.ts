import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { start } from './cli.ts'
import { orgs, people } from './demo.ts'
import { startRelay, type Relay } from './relay.ts'
import { createWorld, temporaryFolder, type World } from './world.ts'

// Commands whose connection ends while Postgres works for them, and nobody says why.

let world: World
let relay: Relay
let folder: Awaited<ReturnType<typeof temporaryFolder>>

beforeAll(async () => {
  [world, folder] = await Promise.all([createWorld(), temporaryFolder()])
  relay = await startRelay(world.databaseUrl)
  await mkdir(folder.path, { recursive: true })
  await writeFile(file('history.jsonl'), `${JSON.stringify({ event: 'Old', user_id: people.ada, timestamp: new Date().toISOString() })}\n`)
  await writeFile(file('events.json'), JSON.stringify({ 'Report Exported': {} }))
  await world.sql`insert into tracking.sinks (name, kind, settings) values ('hook', 'webhook', '{"url": "https://example.test/"}')`
})
afterAll(async () => {
  await relay?.close()
  await world?.close()
  await folder?.remove()
})

const file = (name: string) => join(folder.path, name)

test.each<[string, () => string[], string]>([
  ['a question', () => ['surfaces'], 'public.events in access exclusive mode'],
  ['an export of a month', () => ['export', 'month', '2026-01', '--to', file('out.ndjson')], 'public.events in access exclusive mode'],
  ['an export of a person', () => ['export', 'actor', people.ada, '--to', file('out.ndjson')], 'public.events in access exclusive mode'],
  ['an import', () => ['import', file('history.jsonl'), '--to-sinks'], 'public.events in share mode'],
  ['a replay', () => ['replay', '--sink', 'hook', '--since', 'beginning'], 'tracking.sinks in access exclusive mode'],
  ['a list of dead letters', () => ['dead', 'list'], 'tracking.undelivered in access exclusive mode'],
  ['a catalog', () => ['catalog', 'push', file('events.json')], 'tracking.event_types in access exclusive mode'],
  ['an erasure', () => ['erase', 'org', orgs.evil, '--yes'], 'public.events in access exclusive mode'],
])('%s says that the connection was lost', async (_, args, lock) => {
  await world.sql.begin(async (tx) => {
    await tx.unsafe(`lock table ${lock}`)
    const running = start(args(), { env: { DATABASE_URL: relay.url } })
    await expect.poll(async () => {
      const [{ waiting } = {}] = await world.sql`
        select count(*)::int as waiting from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
      return waiting
    }, { timeout: 20_000 }).toBe(1)
    relay.cut()
    expect([await running.exited, running.stderr()]).toEqual([1, expect.stringMatching(
      /^connection_lost: The connection to the database .+ ended amid the work: .+ \(Check that the database runs, and run the command again\.\)\n$/)])
  })
  expect(await readdir(folder.path)).not.toContain('out.ndjson.part')
})
