# Whether LIBRARY holds machine code for all of ARCHITECTURES (80-real;87-real;90), and PTX for those
# without "-real". CUOBJDUMP lists it.
execute_process(COMMAND ${CUOBJDUMP} --list-elf --list-ptx ${LIBRARY} OUTPUT_VARIABLE listed)
foreach(architecture IN LISTS ARCHITECTURES)
  string(REGEX MATCH "^[0-9]+[a-z]?" number ${architecture})
  if(NOT architecture MATCHES "-virtual$" AND NOT listed MATCHES "sm_${number}\\.cubin")
    message(SEND_ERROR "No machine code for sm_${number} in:\n${listed}")
  endif()
  if(NOT architecture MATCHES "-real$" AND NOT listed MATCHES "sm_${number}\\.ptx")
    message(SEND_ERROR "No PTX for ${number} in:\n${listed}")
  endif()
endforeach()
message(STATUS "${listed}")
