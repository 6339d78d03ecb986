import { createDoor } from '../supabase/functions/_shared/door.ts'
import type { Project } from '../supabase/functions/_shared/project.ts'

/** Where Supabase serves edge functions. */
export const functionsPath = '/functions/v1'

/** Answers a request below `functionsPath`. */
export type Functions = (request: Request) => Promise<Response>

/**
 * Runs the edge functions of `supabase/functions` in this process, as Supabase's gateway and runtime do: no key is
 * asked for, and the path that a function sees begins with its name.
 */
export function startFunctions(project: Project): Functions {
  const door = createDoor(project)
  return async (request) => {
    const url = new URL(request.url)
    url.pathname = url.pathname.slice(functionsPath.length)
    return door.fetch(new Request(url, request))
  }
}
