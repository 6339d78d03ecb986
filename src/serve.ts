import type { Colors } from 'picocolors/types.js'
import { jwtSecret, publishableKey, secretKey } from './api.ts'
import { StackError } from './errors.ts'
import type { Settings } from './settings.ts'
import { startStack, type Stack } from './stack.ts'

export type ServeOptions = {
  settings: Settings
  print(text: string): void
  colors: Colors
  /** What to do first, once everything runs: whether all was well. */
  play?(apiUrl: string, eventsFile: string): Promise<boolean>
  /** Ends after that, instead of serving. */
  once?: boolean
  /** How to track an event from another terminal: a sentence that ends in a colon, and commands to paste. */
  tryIt(apiUrl: string): string
  interrupted: AbortSignal
}

/**
 * Runs the local stack until it is told to stop, and says where everything is.
 *
 * @returns the exit code: 0, or 1 where `play` said that something was not well.
 * @throws {StackError} when something is in the way; see its codes.
 */
export async function serve(options: ServeOptions): Promise<number> {
  const { settings, print, colors, play, once, tryIt, interrupted } = options
  const stack = await startStack(settings, (step) => print(`${colors.dim('·')} ${step}`), interrupted)
  try {
    const { api, eventsFile } = stack
    if (!api || !eventsFile) {
      print('\nThe chapters are applied. This is a Supabase, with APIs of its own: there is nothing else to start.')
      return 0
    }
    const isWell = await play?.(api.url, eventsFile) ?? true
    if (!once) {
      print(`\n${colors.bold('It runs')} until Ctrl-C.\n${directions(stack.databaseUrl, api.url, eventsFile)}\n${tryIt(api.url)}\n`)
      await untilStopped(stack, interrupted)
      print('\nStopping …')
    }
    return isWell ? 0 : 1
  } finally {
    await stack.stop()
  }
}

async function untilStopped(stack: Stack, interrupted: AbortSignal): Promise<void> {
  const asked = new Promise<void>((done) => {
    if (interrupted.aborted) done()
    interrupted.addEventListener('abort', () => done())
  })
  const lost = stack.lost.then(() => { throw new StackError('postgres_failed', 'Postgres has stopped.') })
  await Promise.race([asked, lost])
}

function directions(databaseUrl: string, apiUrl: string, eventsFile: string): string {
  return `
   dashboard        ${apiUrl}/
   API              ${apiUrl}
   publishable key  ${publishableKey}
   secret key       ${secretKey}
   JWT secret       ${jwtSecret}
   database         ${databaseUrl}
   delivered to     ${eventsFile}

To look into the database, paste this into another terminal:

psql '${databaseUrl}' -c 'select occurred_at, event, actor_id, org_id from events order by 1 desc limit 5'
`
}
