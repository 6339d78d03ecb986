import { copyFile, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { projectDir } from '../src/settings.ts'
import { run, start, type RunOptions } from './cli.ts'
import { orgs, people, uuidV7 } from './demo.ts'
import { asLogin, createWorld, temporaryFolder, type World } from './world.ts'

const nobody = 'a0000000-0000-4000-8000-0000000000ff'
const at = '2019-03-05T09:30:00Z'
/** A line that says what became of the rows of an import. */
const became = (recorded: string, already = '0', undecided = '0', dropped = '0', passedOver = '0') =>
  `${recorded} recorded, ${already} there already, ${undecided} undecided, ${dropped} dropped, ${passedOver} passed over\n`

let world: World
let folder: { path: string, remove(): Promise<void> }
const cleanups: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())
beforeEach(async () => {
  folder = await temporaryFolder()
  await world.sql`delete from events`
})
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean()
  await folder.remove()
})

describe('payloads of version 1', () => {
  test('that a real client sent, with an org\'s id in user_id, are recorded for the org; with a person\'s, for the org of their app', async () => {
    const recorded = await realPayloads()
    const old = recorded.map(({ org_id: _, tracking_version: __, ...payload }, n) => ({
      ...payload, user_id: n % 2 === 0 ? orgs.demo : people.ada, timestamp: new Date(Date.UTC(2023, n % 12, 3, 9, 30, n)).toISOString() }))
    expect(await importing([await write(old)])).toEqual({ code: 0, stdout: became('16'), stderr: '' })
    const inTime = old.toSorted((a, b) => (a.timestamp < b.timestamp ? -1 : 1))
    expect(await log()).toMatchObject(inTime.map(({ event, channel, tags, nonPersonTags, timestamp, user_id }) => ({
      event, channel, tags: { ...tags, org_id: orgs.demo }, context: nonPersonTags, occurred_at: new Date(timestamp),
      org_id: orgs.demo, app_id: 'com.demo.app', actor_id: user_id === orgs.demo ? null : people.ada, source: 'service',
      tracking_version: user_id === orgs.demo ? 1 : 2,
    })))
    // And each is where its month is
    expect((await world.sql`select * from tracking.partition_report`).length).toBe(0)
    expect((await world.sql`select distinct tableoid::regclass::text as t from events order by 1`).map(({ t }) => t).at(-1)).toBe('tracking.events_2023_12')
  })

  test('as CSV are the events that they are as JSON lines, but for cells that are empty', async () => {
    const rows = [
      { event: 'Exported', channel: 'reports', description: 'a, "b"\nand c', icon: '📄', parser: 'markdown', user_id: people.bob, event_id: 'e-1', timestamp: at, tags: { app_id: 'com.acme.app', n: 1.50, deep: { list: [1, 'ü'] } }, nonPersonTags: { os: 'linux' } },
      { event: 'Opened', channel: '', user_id: orgs.acme, event_id: 'e-2', timestamp: '2019-03-05 09:31:00.5', tags: {} },
    ]
    expect(await importing([await write(rows.map(({ channel, ...row }) => ({ ...row, ...(channel && { channel }) })))])).toMatchObject({ stdout: became('2') })
    const before = await events()
    expect(before).toMatchObject([
      { event: 'Exported', description: 'a, "b"\nand c', icon: '📄', parser: 'markdown', tags: { n: 1.5, deep: { list: [1, 'ü'] } }, context: { os: 'linux' } },
      { event: 'Opened', channel: 'default', occurred_at: new Date('2019-03-05T09:31:00.5Z'), context: {} }])
    expect(await importing([await writeCsv(rows)])).toMatchObject({ stdout: became('0', '2') })
    await world.sql`delete from events`
    expect(await importing([await writeCsv(rows), '--resume', inFolder('again')])).toMatchObject({ stdout: became('2') })
    expect(await events()).toEqual(before)
  })

  test('as CSV may have a column for each tag', async () => {
    const file = await writeText('event,user_id,timestamp,tags.app_id,tags.format,nonPersonTags.os\nExported,' + `${people.bob},${at},com.acme.app,csv,linux\n`, 'events.csv')
    expect(await importing([file])).toMatchObject({ code: 0, stdout: became('1') })
    expect(await log()).toMatchObject([{ app_id: 'com.acme.app', tags: { format: 'csv' }, context: { os: 'linux' } }])
  })

  test('notify nobody and show in no console', async () => {
    const before = await messages()
    await importing([await write([{ event: 'Old', user_id: orgs.acme, timestamp: at, notify: true }, { event: 'Shown', user_id: orgs.acme, timestamp: at, notifyConsole: true }])])
    expect(await log()).toMatchObject([{ event: 'Old', notify: false }, { event: 'Shown' }])
    expect(await messages()).toBe(before)
  })

  test('without ids get the ids that actorscope track gives them', async () => {
    const file = await write([{ event: 'Twin', timestamp: at, user_id: people.ada }, { event: 'Twin', timestamp: at, user_id: people.ada }])
    const env = { ACTORSCOPE_URL: world.api.url, ACTORSCOPE_EMAIL: 'ada@acme.test', ACTORSCOPE_PASSWORD: 'password' }
    expect(await run(['track', '--file', file], { env })).toMatchObject({ stdout: '2 recorded, 0 there already, 0 dropped\n' })
    expect(await importing([file])).toMatchObject({ stdout: became('0', '2') })
  })

  test('keep the id that carries their time', async () => {
    const id = uuidV7(Date.parse(at))
    await importing([await write([{ event: 'Own', event_id: id, user_id: people.bob }, { event: 'Other', event_id: id, timestamp: '2019-04-05T09:30:00Z', user_id: people.bob }])])
    const [own, other] = await log()
    expect(own).toMatchObject({ event: 'Own', event_id: id, occurred_at: new Date(at) })
    expect(other).toMatchObject({ event: 'Other', occurred_at: new Date('2019-04-05T09:30:00Z') })
    expect(other!.event_id).not.toBe(id)
  })
})

describe('PostHog\'s export', () => {
  test('is taken apart: who, for whom, tags, context, and what is PostHog\'s own', async () => {
    const ended = await importing([await fixture('posthog-events.jsonl')])
    expect(ended.code).toBe(1)
    expect(ended.stdout).toBe(became('5', '0', '2', '0', '4')
      + 'undecided: 1 user_unknown, 1 email_unknown\n'
      + 'passed over: 1 $identify, 1 $groupidentify, 1 $feature_flag_called, 1 $$heatmap\n')
    const page = { $os: 'Mac OS X', $os_version: '10.15.7', $browser: 'Chrome', $browser_version: 126, $device_type: 'Desktop', $current_url: 'https://app.acme.test/reports', $host: 'app.acme.test', $pathname: '/reports', $screen_height: 1080, $screen_width: 1920, $session_id: '0190a000-0000-7000-8000-00000000e001' }
    expect(await log()).toMatchObject([
      { event: 'Invoice Paid', actor_id: people.ada, org_id: orgs.demo, occurred_at: new Date('2024-05-31T23:59:59.999Z'), tags: { amount: 99, channel: '', org_id: orgs.demo }, context: {} },
      { event: '$pageview', actor_id: people.bob, org_id: orgs.acme, occurred_at: new Date('2024-06-10T06:13:20.123Z'), tags: { title: 'Reports', org_id: orgs.acme }, context: page },
      { event: 'Report Exported', actor_id: people.bob, org_id: orgs.acme, app_id: 'com.acme.app', channel: 'default', tracking_version: 2, tags: { app_id: 'com.acme.app', format: 'csv' }, context: page },
      { event: 'CLI Command Invoked', actor_id: null, org_id: orgs.acme, channel: 'cli-usage', description: 'app list', tracking_version: 1, tags: { app_id: 'com.acme.app', command_path: 'app list', org_id: orgs.acme }, context: {} },
      { event: 'Build Succeeded', actor_id: null, org_id: orgs.acme, occurred_at: new Date('2024-06-11T00:00:00Z'), channel: 'build-lifecycle', tags: { build_id: 'b-1', duration_seconds: 61.5 } },
    ])
    const keys = await world.sql`select distinct k from events, jsonb_object_keys(tags || context) as k`
    expect(keys.map(({ k }) => k).sort()).toEqual(['amount', 'app_id', 'build_id', 'channel', 'command_path', 'duration_seconds', 'format', 'org_id', 'rows', 'title', ...Object.keys(page)].sort())
  })

  test('keeps numbers to their last digit', async () => {
    await importing([await fixture('posthog-events.jsonl')])
    const [row] = await world.sql`select tags ->> 'rows' as rows from events where event = 'Report Exported'`
    expect(row!.rows).toBe('12345678901234567890')
  })

  test.each([
    ['as CSV', 'posthog-events.csv', (text: Buffer) => text],
    ['compressed', 'posthog-events.jsonl', (text: Buffer) => gzipSync(text)],
    ['as compressed CSV', 'posthog-events.csv', (text: Buffer) => gzipSync(text)],
  ])('%s holds the same events', async (_, name, pack) => {
    await importing([await fixture('posthog-events.jsonl')])
    const before = await events()
    const packed = await writeText(pack(await readFile(join(projectDir, 'tests/fixtures', name))), 'packed')
    expect((await importing([packed])).stdout).toContain(became('0', '5', '2', '0', '4'))
    await world.sql`delete from events`
    expect((await importing([packed, '--resume', inFolder('again')])).stdout).toContain(became('5', '0', '2', '0', '4'))
    expect(await events()).toEqual(before)
  })

  test('is recognized row by row, and taken for what --from says', async () => {
    const file = await write([
      { event: 'Old', user_id: people.bob, timestamp: at },
      { uuid: '0b2c9f5e-6f0d-4a5e-9a38-3d1b2f3c0001', event: 'From PostHog', distinct_id: people.bob, timestamp: at, properties: '{"n":1}' }])
    expect(await importing([file])).toMatchObject({ code: 0, stdout: became('2') })
    expect(await log()).toMatchObject([{ event: 'From PostHog', tags: { n: 1 } }, { event: 'Old' }])
    expect((await importing([file, '--from', 'v1', '--resume', inFolder('v1')])).stderr).toContain('line 2: user_missing: The row names neither a person nor an organization.')
  })

  test('names the organization in the type of groups that was said', async () => {
    const $groups = { company: orgs.acme, project: orgs.demo }
    const file = await write([{ uuid: '0b2c9f5e-6f0d-4a5e-9a38-3d1b2f3c0001', event: 'Grouped', distinct_id: people.bob, timestamp: at, properties: { $groups, $group_0: orgs.evil } }])
    for (const [args, org] of [[[], orgs.evil], [['--group-type', 'project'], orgs.demo]] as const) {
      await importing([file, ...args, '--resume', inFolder(org)])
      expect(await log()).toMatchObject([{ actor_id: people.bob, org_id: org }])
      await world.sql`delete from events`
    }
  })
})

describe('an import', () => {
  test('of the same file again changes nothing, also on another machine', async () => {
    const rows = [...many(9000), { event: 'Twin', user_id: people.ada, timestamp: at }, { event: 'Twin', user_id: people.ada, timestamp: at }]
    const file = await write(rows)
    expect(await importing([file])).toMatchObject({ code: 0, stdout: became('9,002') })
    const before = await log()
    expect(before.length).toBe(9002)
    expect(await importing([file])).toEqual({ code: 0, stdout: became('9,002'), stderr: 'There is nothing new in it.\n' })
    expect(await importing([file, '--resume', inFolder('elsewhere')])).toMatchObject({ code: 0, stdout: became('0', '9,002') })
    expect(await importing([await write([...rows].reverse(), 'reversed.jsonl')])).toMatchObject({ code: 0, stdout: became('0', '9,002') })
    expect(await log()).toEqual(before)
  })

  test('of stdin is as good as of a file, and goes on with what was added', async () => {
    const rows = many(5000)
    const input = (upTo: number) => ({ input: asText(rows.slice(0, upTo)) })
    const resume = ['-', '--resume', inFolder('stdin')]
    expect(await importing(resume, input(4500))).toMatchObject({ code: 0, stdout: became('4,500') })
    expect(await importing(resume, input(5000))).toMatchObject({ code: 0, stdout: became('5,000') })
    expect(await importing(resume, input(5000))).toMatchObject({ code: 0, stderr: 'There is nothing new in it.\n' })
    expect((await log()).length).toBe(5000)
  })

  test('refuses to go on with another file than it began with, or with what actorscope track kept', async () => {
    const file = await write(many(10))
    await importing([file])
    await write([{ event: 'Other', user_id: people.ada, timestamp: at }, ...many(20)])
    expect((await importing([file])).stderr).toContain('resume_mismatch: The input does not begin with the 10 lines that were done before. (')
    await write(many(3))
    expect((await importing([file])).stderr).toContain('resume_mismatch')
    await writeFile(inFolder('kept'), '{"version":1,"startedAt":"2026-11-05T09:30:00Z","finished":true,"lines":3,"dropped":0}')
    expect((await importing([file, '--resume', inFolder('kept')])).stderr).toContain('resume_unreadable: ')
    expect((await log()).length).toBe(10)
  })

  test('killed 10 times, at any moment, ends with each row recorded once and each bad one told once', async () => {
    // Given a slow database, and rows of which every 4000th cannot be decided
    await slowDown('50ms')
    const rows = Array.from({ length: 24_000 }, (_, n) => ({
      event: 'Killed', user_id: n % 4000 === 1000 ? 'anonymous' : n % 2 === 0 ? orgs.acme : people.bob, tags: { n: n % 9000 }, timestamp: at }))
    const file = await write(rows)
    const args = ['import', file, '--rejects', inFolder('rejects.jsonl')]

    // When it is killed again and again, once it has begun
    for (let kills = 0; kills < 10; kills++) {
      const running = start(args, { env: asOwner() })
      await Promise.race([untilChanged(`${file}.import`), running.exited])
      await sleep(Math.random() * 400)
      running.process.kill('SIGKILL')
      await running.exited
    }

    // Then the last run ends it
    expect(await run(args, { env: asOwner() })).toMatchObject({ code: 1, stdout: expect.stringContaining('6 undecided') })
    const [counted] = await world.sql`select count(*)::int as count, count(distinct event_id)::int as ids, count(distinct tags ->> 'n')::int as numbers from events`
    expect(counted).toEqual({ count: 23_994, ids: 23_994, numbers: 9000 })
    expect((await readRejects()).map(({ line }) => line)).toEqual([1001, 5001, 9001, 13_001, 17_001, 21_001])
  }, 240_000)

  test('interrupted by Ctrl-C exits with 130, says where it stopped, and goes on from there', async () => {
    await slowDown('300ms')
    const file = await write(many(16_000))
    const running = start(['import', file], { env: asOwner() })
    await expect.poll(() => linesDone(file), { timeout: 60_000, interval: 20 }).toBeGreaterThan(0)
    running.process.kill('SIGINT')
    expect(await running.exited).toBe(130)
    expect(running.stderr()).toMatch(/^Stopped after line (4,000|8,000|12,000): the same command goes on from there\.\n$/)
    expect((await importing([file])).code).toBe(0)
    expect((await log()).length).toBe(16_000)
  })

  test('has two batches under way with the same events, in another order, and records each once', async () => {
    await slowDown('20ms')
    const rows = Array.from({ length: 4000 }, (_, n) => ({ event: 'Same', event_id: `e-${n}`, user_id: people.bob, timestamp: at }))
    const other = [3, 2, 1, 0].flatMap((n) => rows.slice(n * 1000, n * 1000 + 1000))
    expect(await importing([await write([...rows, ...other])])).toMatchObject({ code: 0, stdout: became('4,000', '4,000') })
  })

  test('puts events where they belong, also where a time zone puts them in another month', async () => {
    await importing([await write([
      { event: 'New Year', user_id: people.bob, timestamp: '2001-01-01T05:00:00+09:00' },
      { event: 'By its id', user_id: people.bob, event_id: uuidV7(Date.UTC(2003, 4, 5)) }])])
    expect((await world.sql`select event, tableoid::regclass::text as t from events order by 2`).map(({ event, t }) => [event, t])).toEqual([
      ['New Year', 'tracking.events_2000_12'], ['By its id', 'tracking.events_2003_05']])
  })

  test('waits while somebody is in the way of a new partition', async () => {
    const release = await lockLog()
    const running = start(['import', await write([{ event: 'Waited', user_id: people.bob, timestamp: '2002-02-02T02:02:02Z' }])], { env: asOwner() })
    await expect.poll(async () => (await world.sql`select from pg_stat_activity where datname = current_database() and application_name = 'actorscope' and wait_event_type = 'Lock'`).length, { timeout: 30_000, interval: 20 }).toBe(1)
    await sleep(1000)
    await release()
    expect(await running.exited).toBe(0)
    expect((await log()).length).toBe(1)
  })

  test('tried with --dry-run says what would become of it, and changes nothing', async () => {
    const rows = [{ event: 'There', event_id: 'e-0', user_id: people.bob, timestamp: '2004-04-04T04:04:04Z' }, ...many(3), { event: 'Whose', user_id: nobody, timestamp: at }]
    await importing([await write(rows.slice(0, 1))])
    const before = await log()
    await createSink('vendor')
    const tried = await importing([await write(rows, 'dry.jsonl'), '--dry-run', '--rejects', inFolder('rejects.jsonl')])
    expect(tried).toMatchObject({ code: 1, stdout: '3 would be recorded, 1 there already, 1 undecided, 0 dropped, 0 passed over\nundecided: 1 user_unknown\n' })
    expect(tried.stderr).toMatch(/^warning: All that is imported would be delivered to vendor\.\nline 5: user_unknown: /)
    expect((await readRejects()).map(({ line }) => line)).toEqual([5])
    expect(await log()).toEqual(before)
    await expect(stat(inFolder('dry.jsonl.import'))).rejects.toThrow('ENOENT')
  })

  test('prints what became of it as JSON where asked', async () => {
    const file = await write([...many(2), { event: 'Whose', user_id: nobody, timestamp: at }, { user_id: people.bob, timestamp: at },
      { event: '$set', distinct_id: people.bob, timestamp: at }])
    const ended = await importing([file, '--json'])
    expect(JSON.parse(ended.stdout)).toEqual({
      recorded: 2, duplicates: 0, undecided: { user_unknown: 1 }, dropped: { missing_event: 1 }, passed_over: { $set: 1 }, dry_run: false })
  })

  test('of any size takes the same memory', async () => {
    const [watch, used] = [inFolder('watch.mjs'), inFolder('used')]
    await writeFile(watch, `import { writeFileSync } from 'node:fs'
      process.on('exit', () => writeFileSync(${JSON.stringify(used)}, String(process.resourceUsage().maxRSS)))`)
    const row = `0b2c9f5e-6f0d-4a5e-9a38-3d1b2f3c0001,$identify,"{""pad"":""${'x'.repeat(900)}""}",somebody,${at}\n`
    const input = async function* () {
      yield Buffer.from('uuid,event,properties,distinct_id,timestamp\n')
      for (let n = 0; n < 100; n++) yield Buffer.from(row.repeat(1000))
    }
    const ended = await importing(['-'], { input: input(), env: { ...asOwner(), NODE_OPTIONS: `--max-old-space-size=96 --import ${watch}` } })
    expect(ended).toMatchObject({ code: 0, stdout: `${became('0', '0', '0', '0', '100,000')}passed over: 100,000 $identify\n` })
    expect(Number(await readFile(used, 'utf8'))).toBeLessThan(350_000)
  })
})

describe('rows that cannot be decided', () => {
  const rows = [
    { event: 'Known', user_id: people.bob, timestamp: at },
    { event: 'Whose', user_id: nobody, tags: { app_id: 'com.acme.app' }, timestamp: at },
    { event: 'Mail', user_id: 'stranger@else.test', timestamp: at },
    { event: 'Anonymous', user_id: 'anonymous', timestamp: at },
    { event: 'Number', user_id: 42, timestamp: at },
    { event: 'None', timestamp: at },
  ]

  test('are told with line, reason and way out, counted, written to --rejects, and not to the log', async () => {
    const ended = await importing([await write(rows), '--rejects', inFolder('rejects.jsonl')])
    expect(ended.code).toBe(1)
    expect(ended.stdout).toBe(`${became('1', '0', '5')}undecided: 2 user_anonymous, 1 user_unknown, 1 email_unknown, 1 user_missing\n`)
    expect(ended.stderr).toBe([
      `line 2: user_unknown: ${nobody} is neither a person nor an organization. (Import it again once it is one, or say what such ids are: actor or org.)`,
      'line 3: email_unknown: user_id is an address for mail, and nobody\'s. (Replace tracking.person_known_as where your own tables know it.)',
      'line 4: user_anonymous: \'anonymous\' is no id of a person or an organization. (Replace tracking.person_known_as or org.known_as where your own tables know it.)',
      'line 5: user_anonymous: \'42\' is no id of a person or an organization. (Replace tracking.person_known_as or org.known_as where your own tables know it.)',
      'line 6: user_missing: The row names neither a person nor an organization. (Name a person or an organization in user_id, or an app in tags.app_id.)', ''].join('\n'))
    expect(await readRejects()).toMatchObject(rows.slice(1).map((row, n) => ({ line: n + 2, text: JSON.stringify(row) })))
    expect(await log()).toMatchObject([{ event: 'Known' }])
  })

  test('are told ten of a kind, however many there are', async () => {
    const ended = await importing([await write(many(5000, { user_id: nobody })), '--rejects', inFolder('rejects.jsonl')])
    expect(ended).toMatchObject({ code: 1, stdout: `${became('0', '0', '5,000')}undecided: 5,000 user_unknown\n` })
    expect(ended.stderr.trim().split('\n').length).toBe(10)
    expect((await readRejects()).length).toBe(5000)
  })

  test('are recorded when they can be, by the same command, and the others are not doubled', async () => {
    const file = await write(rows)
    await importing([file])
    await world.sql`insert into orgs (id, name) values (${nobody}, 'Found')`
    cleanups.push(() => world.sql`delete from orgs where id = ${nobody}`)
    expect((await importing([file])).stdout).toContain(became('1', '1', '4'))
    expect(await log()).toMatchObject([{ event: 'Known' }, { event: 'Whose', org_id: nobody, actor_id: null }])
  })

  test.each([
    ['actor', { actor_id: nobody, org_id: orgs.acme }],
    ['org', { actor_id: null, org_id: nobody }],
  ])('are an %s\'s where the user says so, if they are UUIDs', async (kind, who) => {
    expect((await importing([await write(rows), '--unknown-as', kind])).stdout).toContain(became('2', '0', '4'))
    expect((await log()).find(({ event }) => event === 'Whose')).toMatchObject(who)
  })
})

describe('rows that cannot be recorded', () => {
  test('do not keep the others from being recorded', async () => {
    const bad = [
      ['nonsense', 'invalid_payload'], ['[1]', 'invalid_payload'], ['{"event":"A', 'invalid_payload'],
      [`{"event":"A\\u0000","user_id":"${people.bob}","timestamp":"${at}"}`, '22P05'],
      [`{"event":"A\\ud800","user_id":"${people.bob}","timestamp":"${at}"}`, '22P02'],
      [`{"event":"A","user_id":"${people.bob}","timestamp":"${at}","tags":{"n":1e400000}}`, '22003'],
      [`{"event":"A","user_id":"${people.bob}","timestamp":"yesterday"}`, 'timestamp_invalid'],
      [`{"event":"A","user_id":"${people.bob}"}`, 'timestamp_required'],
      [`{"event":"A","user_id":"${people.bob}","timestamp":"2199-01-01T00:00:00Z"}`, 'timestamp_in_future'],
      [`{"event":"A","user_id":"${people.bob}","timestamp":"1969-01-01T00:00:00Z"}`, 'timestamp_out_of_range'],
      [`{"event":"A","user_id":"${people.bob}","timestamp":"${at}","tags":{"pad":"${'x'.repeat(40_000)}"}}`, 'payload_too_large'],
      [`{"event":"A","user_id":"${people.bob}","timestamp":"${at}","tags":{"pad":"${'x'.repeat(1_100_000)}"}}`, 'payload_too_large'],
    ] as const
    const good = many(240).map((row) => JSON.stringify(row))
    const mixed = bad.flatMap(([text], n) => [...good.slice(n * 20, n * 20 + 20), text])
    const ended = await importing([await writeText(mixed.join('\n')), '--rejects', inFolder('rejects.jsonl')])
    expect(ended.code).toBe(1)
    expect(ended.stdout).toContain(became('240', '0', '0', '12'))
    expect((await readRejects()).map(({ line, code }) => [line, code])).toEqual(bad.map(([, code], n) => [(n + 1) * 21, code]))
    expect((await log()).length).toBe(240)
    const [months] = await world.sql`select to_regclass('tracking.events_2199_01') as after, to_regclass('tracking.events_1969_01') as before`
    expect(months).toEqual({ after: null, before: null })
  })

  test('in CSV are told by the line that they begin in', async () => {
    const ended = await importing([await writeText(`event,user_id,timestamp,tags\r\n"A",${people.bob},${at},"{""text"":""two\\nlines""}"\r\n"B\nB",${people.bob},${at}\r\n\r\nC,${people.bob},${at},[]\r\nD,${people.bob},${at},\r\n`, 'events.csv')])
    expect(ended).toMatchObject({ code: 1, stdout: `${became('2', '0', '0', '2')}dropped: 2 invalid_payload\n` })
    expect(ended.stderr).toMatch(/^line 3: invalid_payload: The row has 3 cells, and the heading 4\. .*\nline 6: invalid_payload: No JSON object: tags: "\[" at character 1\. .*\n$/)
    expect(await log()).toMatchObject([{ event: 'A', tags: { text: 'two\nlines' } }, { event: 'D' }])
  })

  test('in CSV are told by their lines, whatever ends those', async () => {
    const row = (name: string, when: string, description: string) => `${name},${people.bob},${when},${description}`
    const text = [row('A', at, '"one\r\ntwo\r\nthree"'), row('B', 'bad', 'x'), row('C', 'bad', '"a\r\nb"'), row('D', 'bad', 'x')].join('\r\n')
    const ended = await importing([await writeText(`event,user_id,timestamp,description\n${text}\n${row('E', at, 'pro')}\r\n`, 'events.csv'), '--rejects', inFolder('rejects.jsonl')])
    expect(ended.stdout).toContain(became('2', '0', '0', '3'))
    expect((await readRejects()).map(({ line, code }) => [line, code])).toEqual([5, 6, 8].map((line) => [line, 'timestamp_invalid']))
    expect(await log()).toMatchObject([{ event: 'A', description: 'one\r\ntwo\r\nthree' }, { event: 'E', description: 'pro' }])
  })

  test('in CSV are told where they are not UTF-8, and no letter is changed', async () => {
    const rows = (letter: string) => `event,user_id,timestamp\nA\ufffd,${people.bob},${at}\ncaf${letter},${people.bob},${at}\nB,${people.bob},${at}\n`
    expect((await importing([await writeText(rows('é'), 'utf8.csv')])).stdout).toBe(became('3'))
    const latin = Buffer.concat(rows('\u0001').split('\u0001').flatMap((text, n) => [...n ? [Buffer.from([0xe9])] : [], Buffer.from(text.replace('\ufffd', ''))]))
    const ended = await importing([await writeText(latin, 'latin1.csv')])
    expect(ended).toMatchObject({ code: 1, stdout: expect.stringContaining(became('1', '1', '0', '1')), stderr: expect.stringMatching(/^line 3: invalid_payload: The line is not UTF-8\. /) })
    expect((await log()).map(({ event }) => event).sort()).toEqual(['A', 'A\ufffd', 'B', 'café'])
  })

  test.each([['nothing but a blank line', '\n'], ['a byte order mark', '\ufeff']])('are JSON where %s comes before them, and then a while nothing', async (_, before) => {
    const slowly = async function* () {
      yield Buffer.from(before)
      await sleep(300)
      yield Buffer.from(asText(many(3)))
    }
    expect((await importing(['-'], { input: slowly() })).stdout).toBe(became('3'))
  })

  test.each([
    ['a row of CSV that is none', 'events.csv', () => Buffer.from(`event,user_id,timestamp\nA,${people.bob},${at}\nB,${people.bob},${at}\nC,${people.bob},x"y\nD,${people.bob},${at}\n`), 2],
    ['a quote that never ends', 'events.csv', () => Buffer.from(`event,user_id,timestamp\nA,${people.bob},${at}\nB,"${people.bob},${at}\n`), 1],
  ] as const)('before %s are recorded, and those behind once it is mended', async (_, name, content, recorded) => {
    const path = await writeText(content(), name)
    const ended = await importing([path])
    expect(ended).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/^Stopped after line .*\nfile_unreadable: .* \(Mend the file, and run the command again: nothing is recorded twice\.\)\n$/) })
    expect(await log()).toHaveLength(recorded)
    await writeText(content().toString().replace('x"y', at).replace('"', ''), name)
    expect((await importing([path])).code).toBe(0)
    expect(await log()).toHaveLength(content().toString().split('\n').length - 2)
  })

  test('and their file are not written over by what was dropped, nor is the progress', async () => {
    const path = await writeText(asText(many(3)))
    for (const [args, told] of [
      [['--rejects', path], `${path} is the input. (Name another file with --rejects.)`],
      [['--resume', path], `${path} is the input. (Name another file with --resume.)`],
      [['--rejects', inFolder('r'), '--resume', inFolder('r')], `${inFolder('r')} is the progress of the import. (Name another file with --rejects.)`],
    ] as const) {
      expect(await importing([path, ...args])).toEqual({ code: 1, stdout: '', stderr: `file_conflict: ${told}\n` })
    }
    expect(await readFile(path, 'utf8')).toBe(asText(many(3)))
    expect(await run(['track', '--file', path, '--rejects', path], { env: { ACTORSCOPE_API_KEY: 'as_local_demo_app' } })).toMatchObject({ code: 1, stderr: expect.stringContaining('file_conflict: ') })
    expect(await readFile(path, 'utf8')).toBe(asText(many(3)))
  })

  test.each([
    ['CSV with a quote that never ends', 'events.csv', () => Buffer.from(`event,user_id,timestamp\n"A",${people.bob},${at}\nB,"${people.bob},${at}\n`)],
    ['a compressed file that was cut', 'events.gz', () => gzipSync(asText(many(2000))).subarray(0, 5000)],
    ['something else', 'events.txt', () => Buffer.from('once,upon,a\ntime')],
    ['an empty file', 'events.csv', () => Buffer.from('')],
  ])('%s ends the import with a sentence', async (what, name, content) => {
    const ended = await importing([await writeText(content(), name)])
    if (what === 'an empty file') expect(ended).toEqual({ code: 0, stdout: became('0'), stderr: 'There is nothing new in it.\n' })
    else expect(ended).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/^(Stopped .*\n)?file_unreadable: .*\(.*\)\n$/) })
  })
})

describe('sinks', () => {
  test('are not made to deliver history unless that is said', async () => {
    await createSink('vendor')
    await createSink('archive')
    const file = await write(many(3))
    expect(await importing([file])).toEqual({ code: 1, stdout: '', stderr:
      'sinks_would_deliver: All that is imported would be delivered to archive, vendor. (Have it delivered with --to-sinks, '
      + 'or keep history out of a sink: update tracking.sinks set max_age = \'2 days\' where name = \'archive\';)\n' })
    expect(await log()).toEqual([])
    expect(await importing([file, '--to-sinks'])).toMatchObject({ code: 0, stdout: became('3') })
    expect(await delivered('archive')).toEqual({ events: 3, filtered: 0 })
  })

  test('that take no old events are not told, and their books say so', async () => {
    await createSink('vendor')
    await world.sql`update tracking.sinks set max_age = '2 days' where name = 'vendor'`
    const now = new Date().toISOString()
    expect(await importing([await write([...many(3), { event: 'New', user_id: people.bob, timestamp: now }])])).toMatchObject({ code: 0, stdout: became('4') })
    expect(await delivered('vendor')).toEqual({ events: 1, filtered: 3 })
  })
})

test('a login without the rights is refused, and nothing is recorded', async () => {
  const env = { DATABASE_URL: asLogin(world.databaseUrl, 'authenticator') }
  const ended = await importing([await write(many(3))], { env })
  expect(ended).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/^42501: permission denied .*\(Connect as the owner of the tables, postgres in a Supabase project\.\)\n$/) })
  expect(await log()).toEqual([])
})

test('flags that make no sense are told', async () => {
  for (const args of [['x', '--from', 'mixpanel'], ['x', '--format', 'xml'], ['x', '--unknown-as', 'both'], []]) {
    expect(await importing(args)).toMatchObject({ code: 2, stdout: '', stderr: expect.stringMatching(/^usage: /) })
  }
})

/** The log, but for when it was written. */
async function events(): Promise<Omit<Logged, 'received_at' | 'txid'>[]> {
  return (await log()).map(({ received_at: _, txid: __, ...row }) => row)
}

type Logged = { event: string, event_id: string, occurred_at: Date, [column: string]: unknown }

async function log(): Promise<Logged[]> {
  const rows = [...await world.sql<Logged[]>`select * from events`].map((row) => ({ ...row }))
  return rows.sort((a, b) => (inOrder(a) < inOrder(b) ? -1 : 1))
}

const inOrder = ({ occurred_at, event, event_id }: Logged): string => `${occurred_at.toISOString()} ${event} ${event_id}`

/** The payloads in the fixture that a real client sent. */
async function realPayloads(): Promise<{ event: string, channel: string, org_id?: string, tracking_version: number, tags: object, nonPersonTags: object }[]> {
  const text = await readFile(join(projectDir, 'tests/fixtures/capgo-cli-8.68.1.jsonl'), 'utf8')
  return text.trim().split('\n').map((line) => JSON.parse(line))
}

function many(count: number, more: object = {}): object[] {
  return Array.from({ length: count }, (_, n) => ({ event: 'Imported', user_id: people.bob, timestamp: at, tags: { n }, ...more }))
}

const asText = (rows: object[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join('')
const inFolder = (name: string): string => join(folder.path, name)
const asOwner = (): NodeJS.ProcessEnv => ({ DATABASE_URL: world.databaseUrl })
const importing = (args: string[], options: RunOptions = {}) => run(['import', ...args], { env: asOwner(), ...options })

const write = (rows: object[], name = 'events.jsonl') => writeText(asText(rows), name)

async function writeCsv(rows: Record<string, unknown>[]): Promise<string> {
  const names = Object.keys(rows[0]!)
  const cell = (value: unknown) => (typeof value === 'string' ? value : value === undefined ? '' : JSON.stringify(value))
  const quoted = (text: string) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)
  return writeText([names, ...rows.map((row) => names.map((name) => quoted(cell(row[name]))))].map((cells) => `${cells.join(',')}\n`).join(''), 'events.csv')
}

async function writeText(text: string | Buffer, name = 'events.jsonl'): Promise<string> {
  await writeFile(inFolder(name), text)
  return inFolder(name)
}

async function fixture(name: string): Promise<string> {
  await copyFile(join(projectDir, 'tests/fixtures', name), inFolder(name))
  return inFolder(name)
}

async function readRejects(): Promise<{ line: number, code: string, text: string }[]> {
  const text = await readFile(inFolder('rejects.jsonl'), 'utf8')
  return text.trim().split('\n').filter(Boolean).map((line) => JSON.parse(line))
}

async function messages(): Promise<number> {
  return (await world.sql`select from realtime.messages`).length
}

async function linesDone(file: string): Promise<number> {
  return readFile(`${file}.import`, 'utf8').then((text) => JSON.parse(text).lines, () => 0)
}

async function untilChanged(path: string): Promise<void> {
  const since = await changedAt(path)
  while (await changedAt(path) === since) await sleep(5)
}

const changedAt = (path: string): Promise<number> => stat(path).then(({ mtimeMs }) => mtimeMs, () => 0)

/** Has every insert into the log take longer. */
async function slowDown(by: string): Promise<void> {
  await world.sql.unsafe(`
    create function public.dawdle() returns trigger language plpgsql as $$ begin perform pg_sleep(extract(epoch from interval '${by}')); return null; end $$;
    create trigger dawdle after insert on public.events for each statement execute function public.dawdle()`).simple()
  cleanups.push(() => world.sql.unsafe('drop trigger dawdle on public.events; drop function public.dawdle()').simple())
}

/** Has somebody write to the log, and not commit until that is said. */
async function lockLog(): Promise<() => Promise<void>> {
  const other = await world.sql.reserve()
  await other`begin`
  await other`lock table events in row exclusive mode`
  return async () => {
    await other`commit`
    other.release()
  }
}

async function createSink(name: string): Promise<void> {
  await world.sql`select tracking.create_sink(${name}, 'webhook', '{"url": "http://127.0.0.1:1"}')`
  cleanups.push(() => world.sql`delete from tracking.sinks where name = ${name}`)
}

/** Delivers to a sink all that there is; answers how many events it got, and how many it did not want. */
async function delivered(name: string): Promise<{ events: number, filtered: number }> {
  const [batch] = await world.sql`select * from tracking.lease_batch(${name}, 'test')`
  const { lease, shard, events } = batch!
  await world.sql`select tracking.complete_batch(${name}, ${shard}, ${lease}, '[]')`
  const [cursor] = await world.sql`select filtered::int from tracking.cursors where sink = ${name}`
  return { events: events.length, filtered: cursor!.filtered }
}
