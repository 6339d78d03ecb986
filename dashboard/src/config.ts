/** Which project the dashboard asks, and what it calls people. */
export type Config = {
  /** The project's URL, absolute. */
  url: string
  publishableKey: string
  /** What people are called, by their ids; the others are called by a part of their id. */
  people: Record<string, string>
  /** How people sign in: `password`, `link` (mailed to them), or the names of providers that the project has, such as `github`. */
  signIn: string[]
  /** People whom anybody may come in as: of a demo on one's own machine. */
  demo?: { password: string, people: { email: string, about: string }[] }
}

/** The dashboard does not know which project to ask. */
export class ConfigMissing extends Error {}

/**
 * Reads `config.json` beside index.html; where there is none, or not all of it, what was given at build time
 * (VITE_SUPABASE_URL, VITE_SUPABASE_PUBLISHABLE_KEY).
 *
 * @throws {ConfigMissing} where neither says it; a TypeError where the host does not answer
 */
export async function readConfig(): Promise<Config> {
  const { VITE_SUPABASE_URL, VITE_SUPABASE_PUBLISHABLE_KEY } = import.meta.env
  const found = await fetch('./config.json', { cache: 'no-cache' }).then(jsonOf)
  const url = found.url ?? VITE_SUPABASE_URL
  const publishableKey = found.publishableKey ?? VITE_SUPABASE_PUBLISHABLE_KEY
  if (!url || !publishableKey) throw new ConfigMissing()
  return {
    url: new URL(url, location.href).href.replace(/\/$/, ''),
    publishableKey,
    people: found.people ?? {},
    signIn: found.signIn ?? ['password'],
    demo: found.demo,
  }
}

// Hosts answer for a file that is not there with 404, or with a page.
async function jsonOf(answer: Response): Promise<Partial<Config>> {
  if (!answer.ok || !answer.headers.get('content-type')?.includes('json')) return {}
  return answer.json()
}
