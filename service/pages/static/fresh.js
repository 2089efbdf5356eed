// For pages that only list: keeps the list fresh.
import { keepFresh } from "./live.js";

keepFresh({ active: () => true, seconds: 4 });
