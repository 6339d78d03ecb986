import colors from 'picocolors'
import { publishableKey, secretKey, jwtSecret } from './api.ts'
import { StackError } from './errors.ts'
import { readSettings } from './settings.ts'
import { startStack, type Stack } from './stack.ts'
import { playStory } from './story.ts'

const print = (text: string): void => console.log(text)

/**
 * `npm start`: starts the local stack, plays the story, and serves until it is told to stop. With `--once` it ends
 * after the story.
 *
 * @returns the exit code: 0 when every step of the story did what it said.
 */
async function main(args: string[], interrupted: AbortSignal): Promise<number> {
  const stack = await startStack(readSettings(process.env), (step) => print(`${colors.dim('·')} ${step}`), interrupted)
  try {
    const { api } = stack
    if (!api) {
      print('\nThe chapters are applied. This is a Supabase, with APIs of its own: there is nothing else to start.')
      return 0
    }
    const told = await playStory(api.url, print)
    if (!args.includes('--once')) {
      print(directions(stack.databaseUrl, api.url))
      await untilStopped(stack, interrupted)
      print('\nStopping …')
    }
    return told ? 0 : 1
  } finally {
    await stack.stop()
  }
}

/** Aborts when the terminal, the system or a parent asks this process to end. */
function onInterrupt(): AbortSignal {
  const controller = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => controller.abort())
  return controller.signal
}

async function untilStopped(stack: Stack, interrupted: AbortSignal): Promise<void> {
  const asked = new Promise<void>((done) => {
    if (interrupted.aborted) done()
    interrupted.addEventListener('abort', () => done())
  })
  const lost = stack.lost.then(() => { throw new StackError('postgres_failed', 'Postgres has stopped.') })
  await Promise.race([asked, lost])
}

function directions(databaseUrl: string, apiUrl: string): string {
  return `
${colors.bold('It runs')} until Ctrl-C.

   API              ${apiUrl}
   publishable key  ${publishableKey}
   secret key       ${secretKey}
   JWT secret       ${jwtSecret}
   database         ${databaseUrl}

To look into the database, paste this into another terminal:

psql '${databaseUrl}' -c 'select occurred_at, event, actor_id, org_id from events order by 1 desc limit 5'

To track an event, paste this there, in the project's folder:

${snippet(apiUrl)}
`
}

function snippet(url: string): string {
  return `
node --input-type=module <<'end'
import { createClient } from '@supabase/supabase-js'
import ws from 'ws'
const supabase = createClient('${url}', '${publishableKey}', { realtime: { transport: ws } })
await supabase.auth.signInWithPassword({ email: 'ada@acme.test', password: 'password' })
console.log(await supabase.rpc('track_event', {
  v2: { event: 'Hello', tracking_version: 2, tags: { app_id: 'com.acme.app' } },
}))
end`.trim()
}

const interrupted = onInterrupt()
process.exitCode = await main(process.argv.slice(2), interrupted).catch((error: unknown) => {
  if (interrupted.aborted) return 130
  console.error(error instanceof StackError ? colors.red(`\n${error.message}`) : error)
  return 1
})
