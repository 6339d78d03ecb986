import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { connect as dial, createServer } from 'node:net'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { connect, migrate, standIn } from '../src/database.ts'
import { freePort, isRunning, startPostgres } from '../src/postgres.ts'
import { projectDir, readSettings, type Settings } from '../src/settings.ts'
import { startStack, type Report, type Stack } from '../src/stack.ts'
import { asLogin, cloneDatabase, createWorld, temporaryFolder } from './world.ts'

const cleanups: (() => Promise<unknown> | unknown)[] = []
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean()
})

describe('npm start', () => {
  test('on a fresh folder, with --once: plays the story, exits 0 and leaves no process behind', async () => {
    const settings = await freshSettings()
    const started = run('npm', ['start', '--', '--once'], settings)
    expect(await started.exited, started.output()).toBe(0)
    expect(started.output()).toContain('✓ nothing was written')
    expect(started.output()).toMatch(/✓ all \d\d events that ada may see are there/)
    expect(started.output()).not.toContain('✗')
    await expectNothingLeft(settings)
  })

  test('serves until Ctrl-C, which stops everything; the snippet that it prints works', async () => {
    const settings = await freshSettings()
    const started = run('npm', ['start'], settings)
    await started.prints('It runs until Ctrl-C')
    await started.prints(/^end$/m)
    const snippet = /^node --input-type=module[^]*?^end$/m.exec(started.output())?.[0] ?? ''
    const pasted = run('sh', ['-c', snippet], settings)
    expect(await pasted.exited, pasted.output()).toBe(0)
    expect(pasted.output()).toContain("status: 'ok'")

    started.interrupt()
    await started.exited
    expect(started.output()).toContain('Stopping')
    await expectNothingLeft(settings)
  })

  test('leaves no Postgres behind when it is killed', async () => {
    const settings = await freshSettings()
    const started = run(process.execPath, ['--import', 'tsx', 'src/start.ts'], settings)
    await started.prints('It runs until Ctrl-C')
    expect(await isRunning(settings.dataDir)).toBe(true)
    started.process.kill('SIGKILL')
    await expect.poll(() => isRunning(settings.dataDir), { timeout: 10_000 }).toBe(false)
  })
})

describe('the stack', () => {
  test.each(['ACTORSCOPE_API_PORT', 'ACTORSCOPE_DB_PORT'] as const)(
    'says to change %s where its port is in use, and stops what it had started', async (variable) => {
      const settings = await freshSettings()
      await occupy(variable === 'ACTORSCOPE_API_PORT' ? settings.apiPort : settings.databasePort)
      await expect(startStack(settings, () => {})).rejects.toMatchObject({
        code: 'port_in_use', message: expect.stringContaining(variable) })
      expect(await isRunning(settings.dataDir)).toBe(false)
    })

  test('listens on 127.0.0.1 and no other address of the machine', async () => {
    const settings = await freshSettings()
    await start(settings)
    const others = Object.values(networkInterfaces()).flat().map((i) => i?.address ?? '').filter((a) => a !== '127.0.0.1')
    for (const port of [settings.apiPort, settings.databasePort]) {
      expect(await answers('127.0.0.1', port)).toBe(true)
      for (const address of ['::1', ...others]) expect(await answers(address, port), address).toBe(false)
    }
  })

  test('keeps what was written over a restart, and seeds once', async () => {
    const settings = await freshSettings()
    const first = await start(settings)
    await ask(first, "insert into orgs (id, name) values ('a0000000-0000-4000-8000-000000000009', 'Kept')")
    await first.stop()
    const second = await start(settings)
    expect(await ask(second, 'select name from orgs order by name')).toEqual(
      ['Acme', 'Demo', 'Evil', 'Kept'].map((name) => ({ name })))
  })

  test('gives a new demo world half a year of events and builds, where it is asked to, and the dashboard to see them in', async () => {
    const settings = { ...(await freshSettings()), hasPast: true }
    const stack = await start(settings)
    const [past] = await ask(stack, `
      select count(*) > 5000 as "isLong", min(occurred_at) < now() - interval '170 days' as "isOld", max(occurred_at) <= now() as "isPast",
             bool_and(source = case channel when 'build-lifecycle' then 'trigger' else 'service' end) as "isHonest",
             (select count(*) from build_requests) > 400 and bool_and(e.app_id is not null or e.org_id is null) as "isWhole",
             (select count(*) from tracking.partition_report) as strays
      from   events as e`)
    expect(past).toEqual({ isLong: true, isOld: true, isPast: true, isHonest: true, isWhole: true, strays: '0' })
    const gaps = await ask(stack, `
      select status from build_requests as b where not exists (
        select from events as e where e.tags ->> 'build_id' = b.id::text having count(*) = 3 and count(distinct e.event) = 3)`)
    expect(gaps).toEqual([])
    expect(await (await fetch(`${stack.api?.url}/`)).text()).toContain('<title>Actorscope</title>')
    await stack.stop()
    const again = await start(settings)
    expect(await ask(again, 'select count(*) > 10000 as twice from events')).toEqual([{ twice: false }])
  })

  test('has a worker that delivers the log to a file, each event once, also over a restart', async () => {
    const settings = await freshSettings()
    const first = await start(settings)
    const written = await ask(first, writeEvent)
    await expect.poll(() => linesOf(first), { timeout: 20_000 }).toMatchObject(written)
    await first.stop()
    const second = await start(settings)
    written.push(...await ask(second, writeEvent))
    await expect.poll(() => linesOf(second), { timeout: 20_000 }).toMatchObject(written)
  })

  test('writes to the file of its folder where that was moved, and tells of a sink that fails', async () => {
    const settings = await freshSettings()
    const told: string[] = []
    const stack = await start(settings, (step) => told.push(step))
    await ask(stack, `update tracking.sinks set settings = '{"path": "/nowhere/events.ndjson"}'`)
    await ask(stack, writeEvent)
    await expect.poll(() => told.join('\n'), { timeout: 20_000 }).toMatch(/a batch failed.*ENOENT/)
    await stack.stop()
    const moved = await start(settings)
    await ask(moved, 'update tracking.cursors set retry_at = null')
    await expect.poll(async () => (await linesOf(moved)).at(-1)?.event, { timeout: 20_000 }).toBe('Report Exported')
  })

  test('refuses a data folder that another stack uses', async () => {
    const settings = await freshSettings()
    await start(settings)
    const other = { ...settings, apiPort: await freePort(), databasePort: await freePort() }
    await expect(startStack(other, () => {})).rejects.toMatchObject({ code: 'data_in_use' })
  })

  test('refuses a database that was made from other chapters', async () => {
    const settings = await freshSettings()
    const first = await start(settings)
    await ask(first, "comment on schema dbmate is 'others'")
    await first.stop()
    await expect(startStack(settings, () => {})).rejects.toMatchObject({
      code: 'data_outdated', message: expect.stringContaining('npm run reset') })
  })

  test('starts where an unclean end left its lock behind', async () => {
    const folder = await temporaryFolder()
    cleanups.push(() => folder.remove())
    const port = await freePort()
    const first = await startPostgres({ port, dataDir: folder.path })
    await first.kill()
    expect(existsSync(join(folder.path, 'postgres/postmaster.pid'))).toBe(true)
    const second = await startPostgres({ port, dataDir: folder.path })
    await second.stop()
  })

  test('uses the Postgres that DATABASE_URL names, and starts none', async () => {
    // A server of its own, since the login of the API, and its password, belong to the whole server.
    const databaseUrl = await runServer()
    const settings = { ...(await freshSettings()), databaseUrl }
    const stack = await start(settings)
    expect(existsSync(join(settings.dataDir, 'postgres'))).toBe(false)
    expect(stack.databaseUrl).toBe(databaseUrl)
    const answer = await fetch(`${stack.api?.url}/rest/v1/orgs`, { headers: { apikey: 'sb_publishable_actorscope_local' } })
    expect(answer.status).toBe(200)
  })

  test('applies the chapters alone to a real Supabase', async () => {
    const databaseUrl = await runServer()
    const sql = connect(databaseUrl, { max: 1 })
    cleanups.push(() => sql.end())
    await standIn(sql)
    await sql`create role supabase_admin superuser`

    const stack = await start({ ...(await freshSettings()), databaseUrl })
    expect(stack.api).toBeUndefined()
    expect(await sql`select count(*)::int as orgs, to_regrole('lite') as login from orgs`).toEqual([{ orgs: 0, login: null }])
  })

  test('refuses a database that does not answer', async () => {
    const databaseUrl = `postgres://postgres@127.0.0.1:${await freePort()}/postgres`
    await expect(startStack({ ...(await freshSettings()), databaseUrl }, () => {})).rejects.toMatchObject({ code: 'database_unusable' })
  })
})

test('the API stops while requests are at the database', async () => {
  const world = await createWorld()
  const ada = await world.signIn('ada@acme.test')
  let isAsking = true
  const asking = Promise.all(Array.from({ length: 4 }, async () => { while (isAsking) await ada.rpc('read_events') }))
  expect((await ada.rpc('read_events')).status).toBe(200)
  await world.close()
  expect(await answers('127.0.0.1', Number(new URL(world.api.url).port))).toBe(false)
  isAsking = false
  await asking
})

describe('settings', () => {
  test('are Supabase\'s ports and a folder in the project, unless the environment says otherwise', () => {
    expect(readSettings({})).toEqual({ apiPort: 54321, databasePort: 54322, dataDir: join(projectDir, '.actorscope'), hasPast: true })
    expect(readSettings({ ACTORSCOPE_API_PORT: '1', ACTORSCOPE_DB_PORT: '65535', ACTORSCOPE_DATA_DIR: '/data', ACTORSCOPE_DEMO_PAST: 'off', DATABASE_URL: 'postgres://a@b/c' }))
      .toEqual({ apiPort: 1, databasePort: 65535, dataDir: '/data', hasPast: false, databaseUrl: 'postgres://a@b/c' })
  })

  test.each([
    [{ ACTORSCOPE_API_PORT: 'abc' }, 'ACTORSCOPE_API_PORT'],
    [{ ACTORSCOPE_API_PORT: '0' }, 'ACTORSCOPE_API_PORT'],
    [{ ACTORSCOPE_DB_PORT: '65536' }, 'ACTORSCOPE_DB_PORT'],
    [{ ACTORSCOPE_DB_PORT: '1e3' }, 'ACTORSCOPE_DB_PORT'],
    [{ ACTORSCOPE_DB_PORT: '54321' }, 'must differ'],
    [{ ACTORSCOPE_DEMO_PAST: 'no' }, 'ACTORSCOPE_DEMO_PAST'],
    [{ DATABASE_URL: 'localhost' }, 'DATABASE_URL'],
    [{ DATABASE_URL: 'mysql://a@b/c' }, 'DATABASE_URL'],
  ])('refuse %j, naming what is wrong', (environment, named) => {
    expect(() => readSettings(environment)).toThrow(expect.objectContaining({
      code: 'setting_invalid', message: expect.stringContaining(named) }))
  })
})

describe('npm run reset', () => {
  test('refuses while the stack runs, and empties the folder when it does not', async () => {
    const settings = await freshSettings()
    const stack = await start(settings)
    const refused = run('npm', ['run', 'reset'], settings)
    expect(await refused.exited).toBe(1)
    expect(refused.output()).toContain('Stop npm start first')
    await stack.stop()
    expect(await run('npm', ['run', 'reset'], settings).exited).toBe(0)
    for (const made of ['postgres', 'events.ndjson']) expect(existsSync(join(settings.dataDir, made)), made).toBe(false)
  })
})

describe('the chapters', () => {
  test('end in the same schema by dbmate and by supabase db push, as an owner who is no superuser', async () => {
    const byDbmate = await supabaseProject()
    await migrate(byDbmate)
    const byCli = await supabaseProject()
    const push = run('npx', ['supabase', 'db', 'push', `--remote=${byCli}`, '--yes'])
    expect(await push.exited, push.output()).toBe(0)
    const catalog = await catalogOf(byDbmate)
    expect(catalog.filter((line) => line.startsWith('function public.track_event('))).toHaveLength(1)
    expect(await catalogOf(byCli)).toEqual(catalog)
  })
})

async function freshSettings(): Promise<Settings> {
  const folder = await temporaryFolder()
  cleanups.push(() => folder.remove())
  return { apiPort: await freePort(), databasePort: await freePort(), dataDir: folder.path }
}

async function runServer(): Promise<string> {
  const folder = await temporaryFolder()
  cleanups.push(() => folder.remove())
  const server = await startPostgres({ port: await freePort(), dataDir: folder.path })
  cleanups.push(() => server.stop())
  return `postgres://postgres:postgres@127.0.0.1:${server.port}/postgres`
}

async function start(settings: Settings, report: Report = () => {}): Promise<Stack> {
  const stack = await startStack(settings, report)
  cleanups.push(() => stack.stop())
  return stack
}

async function ask({ databaseUrl }: Stack, statement: string): Promise<object[]> {
  const sql = connect(databaseUrl, { max: 1 })
  return [...(await sql.unsafe(statement).finally(() => sql.end()))]
}

const writeEvent = `
  insert into events (scope_id, org_id, actor_id, event, event_id, occurred_at)
  select o.id, o.id, '10000000-0000-4000-8000-000000000001', 'Report Exported', e.id, tracking.event_time(e.id)
  from   (select id from orgs order by id limit 1) as o, tracking.new_event_id(now()) as e (id)
  returning event_id`

async function linesOf({ eventsFile = '' }: Stack): Promise<Record<string, unknown>[]> {
  const text = await readFile(eventsFile, 'utf8').catch(() => '')
  return text.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line))
}

async function occupy(port: number): Promise<void> {
  const server = createServer()
  await new Promise<void>((done) => server.listen(port, '127.0.0.1', done))
  cleanups.push(() => new Promise((done) => server.close(done)))
}

async function answers(address: string, port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = dial({ host: address, port, timeout: 1000 })
    const end = (result: boolean) => { socket.destroy(); done(result) }
    socket.on('connect', () => end(true)).on('error', () => end(false)).on('timeout', () => end(false))
  })
}

async function expectNothingLeft(settings: Settings): Promise<void> {
  expect(await isRunning(settings.dataDir)).toBe(false)
  expect(await answers('127.0.0.1', settings.apiPort)).toBe(false)
  expect(await answers('127.0.0.1', settings.databasePort)).toBe(false)
}

/** An empty database as a Supabase project has it: its owner is no superuser, and the platform's objects are not its own. */
async function supabaseProject(): Promise<string> {
  const clone = await cloneDatabase('template1')
  cleanups.push(() => clone.drop())
  const sql = connect(clone.databaseUrl, { max: 1 })
  await standIn(sql)
  await sql.unsafe(`
    do $$ begin
      if to_regrole('project_owner') is null then
        create role project_owner login password 'postgres' createrole createdb bypassrls;
        grant anon, authenticated, service_role to project_owner with admin option;
      end if;
    end $$;
    do $$ begin execute format('alter database %I owner to project_owner', current_database()); end $$;
    grant all on schema auth, realtime, extensions to project_owner with grant option;
    grant all on all tables in schema auth to project_owner;
    alter table realtime.messages owner to project_owner; -- there, postgres may make policies on it
    alter default privileges for role project_owner in schema public grant all on tables to anon, authenticated, service_role;
    alter default privileges for role project_owner in schema public grant all on functions to anon, authenticated, service_role;
    alter default privileges for role project_owner in schema public grant all on sequences to anon, authenticated, service_role;
  `).simple()
  await sql.end()
  return asLogin(clone.databaseUrl, 'project_owner')
}

async function catalogOf(databaseUrl: string): Promise<string[]> {
  const sql = connect(databaseUrl, { max: 1 })
  const rows = await sql.unsafe(await readFile(join(projectDir, 'tests/catalog.sql'), 'utf8'))
  await sql.end()
  return rows.map((row) => `${row.object}: ${row.definition}`)
}

type Run = {
  process: ChildProcess
  exited: Promise<number | null>
  output(): string
  prints(text: string | RegExp): Promise<void>
  /** Ctrl-C: the terminal sends the signal to every process of the group. */
  interrupt(): void
}

function run(command: string, args: string[], settings?: Settings): Run {
  const environment = settings && {
    ACTORSCOPE_API_PORT: String(settings.apiPort),
    ACTORSCOPE_DB_PORT: String(settings.databasePort),
    ACTORSCOPE_DATA_DIR: settings.dataDir,
    DATABASE_URL: '',
  }
  const plain = { FORCE_COLOR: undefined, NO_COLOR: '1' }
  const child = spawn(command, args, { cwd: projectDir, env: { ...process.env, ...plain, ...environment }, detached: true })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => { output += chunk })
  let ended = false
  const exited = new Promise<number | null>((done) => child.once('close', (code) => { ended = true; done(code) }))
  const interrupt = () => { if (child.pid !== undefined && !ended) process.kill(-child.pid, 'SIGINT') }
  cleanups.push(async () => { interrupt(); await exited })
  return {
    process: child,
    exited,
    output: () => output,
    prints: (text) => expect.poll(() => output, { timeout: 60_000 }).toMatch(text),
    interrupt,
  }
}
